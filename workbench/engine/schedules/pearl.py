"""Draft and target work at the same time: the draft writes on while the target still checks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from workbench.core.decoding import Budget, Context, Feedback
from workbench.core.errors import Mismatch
from workbench.core.method import Paper, knob, method
from workbench.core.trace import Lane, Round
from workbench.core.tree import DraftTree
from workbench.engine.decode import Decoding, draw_outcome, prepare, target_laws
from workbench.engine.overlap import (
    Block,
    Clock,
    Stretch,
    both,
    drafted_after,
    timed,
    uniform_numbers,
)
from workbench.engine.record import record_round
from workbench.engine.seen import seen_of
from workbench.engine.stopwatch import Stopwatch

LONGEST_BALANCED = 8


@method(
    "schedule",
    title="PEARL (parallel)",
    paper=Paper(
        "PEARL: Parallel Speculative Decoding with Adaptive Draft Length", 2024, "2408.11850"
    ),
)
class Pearl:
    """Pre-verify the first drafted token while drafting, post-verify the rest while drafting on.

    *Idea*: plain speculative decoding lets one model wait for the other. Here the target checks the
    block drafted last (and, at its end, the first token of the next) while the draft writes the
    next block; a chain that keeps being accepted has no fixed length.

    *Deviations*: ``window`` 0 balances the two sides from their measured times, so one seed may
    then give other rounds (of the same law). The policy's budget is not asked: the window is the
    block. Tokens are tested by the rule of the run (plain rejection there), with one stream of
    random numbers a run instead of one seed a position. With clock "simulated" both sides run one
    after the other and a round is charged the longer of the two; such rounds say so. Every token is
    tested once, or drawn from a residual; there is no bonus token while blocks overlap.

    *Cost*: a round takes max(window x draft, target); a rejection wastes the block in flight.

    *Raises*: Mismatch for any drafter but the draft model.
    """

    window: int = knob(
        4, low=0, high=16, unit="tokens", help="Drafted while the target checks; 0 = balanced."
    )
    clock: str = knob(
        "threads",
        choices=("threads", "simulated"),
        help="Run both at once, or one by one and charge the longer.",
    )
    pre_verify: bool = knob(True, help="Check the first drafted token while the block is drafted.")
    post_verify: bool = knob(True, help="Draft on while a block is checked.")

    def decode(self, run: Decoding, prompt: list[int]) -> Iterator[Round]:
        """Yield rounds: the chain tested in each, with both lanes of work."""
        name = getattr(run.drafter, "name", "")
        if name != "draft_model" or run.draft is None:
            raise Mismatch(
                "schedule='pearl' writes chains with the draft model itself and cannot drive"
                f" drafter={name!r}; choose the drafter draft_model"
            )
        ctx, _ = prepare(run, prompt)
        end, index, waiting = len(prompt) + run.max_new_tokens, 0, Block([])
        clock, window = Clock(self.clock == "simulated"), self.window or 2
        with ThreadPoolExecutor(1) as pool:
            while not run.finish:
                if run.target.model.context_tokens - len(run.target) - 1 < len(waiting.tokens):
                    run.finish = "context"
                    return
                watch, lanes = Stopwatch(run.target, run.draft), []
                if not waiting.tokens and not self.pre_verify:
                    waiting = self._alone(run, ctx, clock, window, end, lanes, watch)
                overlap = self.post_verify if waiting.tokens else self.pre_verify
                more = room(run, ctx, waiting, window, end) if overlap else 0
                work = both(run, ctx, waiting, more, clock, pool)
                if run.cancelled():
                    run.finish = "stopped"
                    return
                if self.window == 0 and more:
                    ratio = work.target_ms / max(work.draft_ms / more, 1e-3)
                    window = max(1, min(LONGEST_BALANCED, round(ratio)))
                beyond_ms = max(0.0, work.draft_ms - work.target_ms)
                watch.charge(verify=work.target_ms, draft=beyond_ms)
                done, waiting = _judged(run, ctx, waiting, work, watch, index, end, clock, lanes)
                yield done
                index += 1

    def _alone(self, run, ctx, clock, window, end, lanes: list[Lane], watch) -> Block:
        """Draft a block while the target waits."""
        count, start = room(run, ctx, Block([]), window, end), clock.now_ms()
        uniforms = uniform_numbers(ctx, count)
        drafted, took_ms = timed(lambda: drafted_after(run, ctx, Block([]), uniforms))
        clock.at_ms = start + took_ms
        watch.lap("draft")
        lanes.append(clock.lane("draft", start, took_ms, f"draft {count}", True))
        return drafted


def room(run: Decoding, ctx: Context, waiting: Block, window: int, end: int) -> int:
    """Tokens that may still be drafted after what is waiting."""
    used = len(ctx.tokens) + len(waiting.tokens)
    held = min(run.target.model.context_tokens, run.draft.model.context_tokens) - used - 1
    return max(0, min(window, end - used, held))


def _judged(
    run: Decoding,
    ctx: Context,
    waiting: Block,
    work: Stretch,
    watch: Stopwatch,
    index: int,
    end: int,
    clock: Clock,
    lanes: list[Lane],
) -> tuple[Round, Block]:
    """Test the waiting tokens and the first new one; the round, and what waits next."""
    count, overlapped = len(waiting.tokens), bool(work.drafted.tokens)
    chain = waiting.joined(work.drafted.cut(0, 1))
    tokens = ctx.here(torch.tensor(chain.tokens, dtype=torch.long, device=run.draft.device))
    laws = None if chain.laws is None else ctx.here(chain.laws)
    tree = DraftTree.chain(tokens, laws)
    p, bits = target_laws(run, work.forward, ctx.tokens)
    if overlapped:  # nobody knows the law after the newest token yet
        p, bits = torch.cat((p, torch.zeros_like(p[:1]))), [*bits, 0.0]
    verdict = run.verifier.verify(tree, p)
    drawn = draw_outcome(run, ctx, tree, verdict, end, bonus_at_end=not overlapped)
    kept, emitted = len(drawn.outcome.path), drawn.outcome.emitted
    run.target.commit(range(min(kept, count, len(emitted) - 1) + 1))
    whole = overlapped and kept == len(tree)
    feedback = Feedback(tree, work.forward.logits, {}, drawn.outcome, ctx.tokens)
    run.drafting = run.drafter.update(ctx, run.drafting, feedback)
    start, root = len(ctx.tokens), ctx.tokens[-1]
    ctx.tokens = [*ctx.tokens, *emitted]
    lanes.append(clock.lane("target", work.start_ms, work.target_ms, f"check {len(tree)}", True))
    if overlapped:
        label = f"draft {len(work.drafted.tokens)}"
        lanes.append(clock.lane("draft", work.start_ms, work.draft_ms, label, whole))
    ctx.report("mode", "post" if count else "pre")
    if clock.simulated:
        ctx.say("Simulated clock: both sides ran one by one and the longer one is charged.")
    watch.lap("other")
    told, note = ctx.take_reports()
    budget = Budget(len(tree), len(tree), 1)
    done = record_round(
        index,
        start,
        root,
        tree,
        seen_of(tree, p, bits, run.record_top),
        verdict,
        drawn,
        budget,
        watch,
        told,
        note,
        lanes,
    )
    return done, work.drafted.cut(1) if whole else Block([])
