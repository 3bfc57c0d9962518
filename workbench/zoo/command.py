"""``workbench zoo``: train the embedded models again, enlarge them, or show what is known."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import torch

from workbench.core.errors import BadInput, closest
from workbench.models.attachments import EMBEDDED
from workbench.models.corpus import SourceFile, read_corpus
from workbench.zoo import inflate_command
from workbench.zoo.corpus import TokenisedCorpus, tokenise
from workbench.zoo.heads import HEAD_NAMES, ROUTER_HEAD, train_heads, train_router_head
from workbench.zoo.publish import WEIGHTS, cards, head_cards, make_card, publish
from workbench.zoo.recipe import RECIPES
from workbench.zoo.tokenizer import train_tokenizer
from workbench.zoo.train import TrainSettings, train

DEFAULT_TOKENS = {"target": 7_400_000, "draft": 6_000_000, "moe": 3_600_000}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands ``train``, ``inflate``, ``info`` and ``prompts``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    trainer = actions.add_parser(
        "train", help="train an embedded model, or a head beside one, from this Python's source"
    )
    trainer.add_argument("name", choices=[*RECIPES, "all", *HEAD_NAMES, "heads", ROUTER_HEAD])
    trainer.add_argument(
        "--target", help="for heads: the model they serve (default: zoo:target; recurrent: zoo:moe)"
    )
    trainer.add_argument("--draft", default="zoo:draft", help="for specdec_pp: the draft model")
    trainer.add_argument("--rows", type=int, help="for heads: sequences to learn from")
    trainer.add_argument("--tokens", type=int, help="tokens to see in all (default: by model)")
    trainer.add_argument("--batch-rows", type=int, default=16, help="rows a step")
    trainer.add_argument("--row-tokens", type=int, default=256, help="tokens a row")
    trainer.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    trainer.add_argument("--fp32", action="store_true", help="no bf16 autocast")
    trainer.add_argument("--no-compile", action="store_true", help="run the layers eagerly")
    trainer.add_argument("--corpus", type=Path, help="folder of *.py files (default: the stdlib)")
    trainer.add_argument("--state", type=Path, default=Path("runs/zoo"), help="resumable state")
    trainer.add_argument("--out", type=Path, default=WEIGHTS, help="where the model is written")
    inflate_command.add_arguments(
        actions.add_parser(
            "inflate", help="a large checkpoint that computes the function of a small one"
        )
    )
    info = actions.add_parser("info", help="cards of the embedded models")
    info.add_argument("--json", action="store_true")
    prompts = actions.add_parser("prompts", help="the held-out prompts, or the text of one")
    prompts.add_argument("name", nargs="?", help="print only this prompt's text")
    prompts.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Dispatch; returns the exit code."""
    if args.action == "train":
        return train_command(args)
    if args.action == "inflate":
        return inflate_command.run(args)
    return info_command(args) if args.action == "info" else prompts_command(args)


def read_files(folder: Path | None) -> list[SourceFile]:
    """The corpus as text."""
    try:
        return read_corpus(folder)
    except FileNotFoundError as error:
        raise BadInput(f"--corpus: {error}") from None


def load_corpus(folder: Path | None, tokenizer_folder: Path) -> TokenisedCorpus:
    """Read and encode the corpus, training the tokenizer first where there is none."""
    from transformers import AutoTokenizer

    logging.getLogger("transformers").setLevel(logging.ERROR)
    files = read_files(folder)
    if not (tokenizer_folder / "tokenizer.json").exists():
        print("training the tokenizer ...", file=sys.stderr)
        tokenizer_folder.mkdir(parents=True, exist_ok=True)
        train_tokenizer((f.text for f in files if f.part == "train"), tokenizer_folder)
    return tokenise(files, AutoTokenizer.from_pretrained(tokenizer_folder))


def check_corpus(corpus: TokenisedCorpus, args: argparse.Namespace) -> None:
    """Refuse a corpus that cannot fill one step, or that leaves nothing to measure the loss on."""
    wanted = (args.batch_rows + 1) * args.row_tokens + 1
    if corpus.n_tokens("train") < wanted:
        raise BadInput(
            f"corpus={str(args.corpus)!r} gives {corpus.n_tokens('train')} training tokens; one"
            f" step needs {wanted}. Add files, or lower --batch-rows and --row-tokens"
        )
    if not corpus.parts["held_out"]:
        raise BadInput(
            f"corpus={str(args.corpus)!r} leaves no held-out file (one path in 50 is held out);"
            " add files"
        )


def train_heads_command(args: argparse.Namespace) -> int:
    """Train one head, or all of them, beside a target that stays as it is."""
    try:
        import accelerate  # noqa: F401
    except ImportError:
        raise BadInput(
            "training heads needs transformers' Trainer: pip install 'draft-workbench[train]'"
        ) from None
    files = read_files(args.corpus)
    names = HEAD_NAMES if args.name == "heads" else (args.name,)
    out = EMBEDDED if args.out == WEIGHTS else args.out

    def report(line: str) -> None:
        print(f"\r{line}   ", end="", file=sys.stderr, flush=True)

    how = {"device": args.device, "rows": args.rows, "report": report}
    if args.name == ROUTER_HEAD:
        target = args.target or "zoo:moe"
        made = [train_router_head(files, args.state, out, target=target, **how)]
    else:
        target = args.target or "zoo:target"
        made = train_heads(names, files, args.state, out, target=target, draft=args.draft, **how)
    for card in made:
        print(file=sys.stderr)
        print(f"{card['name']}: {card['parameters']} parameters, written to {out / card['name']}")
    return 0


def train_command(args: argparse.Namespace) -> int:
    if args.name in (*HEAD_NAMES, "heads", ROUTER_HEAD):
        return train_heads_command(args)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer_folder = args.out / "tokenizer"
    corpus = load_corpus(args.corpus, tokenizer_folder)
    print(
        f"corpus: {corpus.file_count} files, {corpus.corpus_bytes / 1e6:.1f} MB,"
        f" {corpus.n_tokens('train') / 1e6:.2f} M training tokens",
        file=sys.stderr,
    )
    check_corpus(corpus, args)
    for name in RECIPES if args.name == "all" else [args.name]:
        tokens = args.tokens or DEFAULT_TOKENS[name]
        settings = TrainSettings(
            tokens, args.batch_rows, args.row_tokens, device, not args.fp32, not args.no_compile
        )
        recipe = RECIPES[name]
        model, progress = train(recipe, corpus, settings, args.state / name, _report)
        print(file=sys.stderr)
        card = make_card(recipe, corpus, settings, model, progress)
        publish(args.out / name, model, tokenizer_folder, card)
        print(f"{name}: held-out loss {card['held_out_loss']:.3f}, written to {args.out / name}")
    return 0


def _report(line: dict) -> None:
    loss = "-" if line["loss"] is None else f"{line['loss']:.3f}"
    minutes, seconds = divmod(round(line["eta_s"]), 60)
    print(
        f"\rstep {line['step']}/{line['steps']}  loss {loss}"
        f"  {line['tokens_per_s']:,.0f} tokens/s  {minutes}:{seconds:02d} left   ",
        end="",
        file=sys.stderr,
        flush=True,
    )


def info_command(args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps([*cards(), *head_cards()], indent=1))
        return 0
    for card in cards():
        print(
            f"zoo:{card['name']:<8} {card['parameters'] / 1e6:6.2f} M parameters"
            f"  {card['weights_bytes'] / 1e6:5.1f} MB"
            f"  {card['tokens_seen'] / 1e6:6.1f} M tokens seen"
            f"  held-out loss {card['held_out_loss']:.3f} nats"
            f"  (bigram {card['bigram_loss']:.3f})  top-1 {card['held_out_top1']:.3f}"
        )
    for card in head_cards():
        print(
            f"head {card['name']:<9} {card['parameters'] / 1e6:5.2f} M parameters"
            f"  {card['weights_bytes'] / 1e6:5.1f} MB"
            f"  {card['tokens_seen'] / 1e6:6.1f} M tokens seen, for {card['target_name']}"
        )
    return 0


def prompts_command(args: argparse.Namespace) -> int:
    from workbench.zoo.held_out import prompts

    found = prompts()
    if args.name:
        texts = {p.name: p.text for p in found}
        if args.name not in texts:
            raise BadInput(f"prompt={args.name!r} is not known.{closest(args.name, texts)}")
        print(texts[args.name], end="")
        return 0
    if args.json:
        rows = [{"name": p.name, "kind": p.kind, "source": p.source, "text": p.text} for p in found]
        print(json.dumps(rows, indent=1))
        return 0
    for p in found:
        print(f"{p.name:<24} {p.kind:<18} {p.source}")
    return 0
