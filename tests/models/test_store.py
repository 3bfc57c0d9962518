"""The store finds what a plain scan finds, never across documents, and refuses what is no text."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.core.errors import BadInput
from workbench.models.load import load
from workbench.models.store import BORDER, Store, open_store
from workbench.zoo.held_out import prompts


def scan(documents, span):
    """Places after each occurrence, by looking at every place of every document."""
    found, start = [], 0
    for ids in documents:
        ids = list(ids)
        for place in range(len(ids) - len(span) + 1):
            if ids[place : place + len(span)] == span:
                found.append(start + place + len(span))
        start += len(ids) + 1
    return found


def random_documents(seed, count=8, words=4):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, words, rng.integers(1, 120)) for _ in range(count)]


def test_a_thousand_queries_against_a_scan():
    rng, missing = np.random.default_rng(2), 0
    for seed in range(10):
        documents = random_documents(seed)
        store = Store.of(documents)
        for _ in range(100):
            span = rng.integers(0, 4, rng.integers(1, 9)).tolist()
            wanted = scan(documents, span)
            assert store.places(span).tolist() == wanted
            missing += not wanted
    assert missing > 50, "spans that occur nowhere must be among the queries"


def test_ids_of_one_two_and_three_bytes_are_in_order():
    ids = np.array([0, 7, 254, 255, 256, 65_534, 65_535, 65_536, 200_000])
    documents = [ids[words] for words in random_documents(3, words=len(ids))]
    store = Store.of(documents)
    for span in ([a, b] for a in ids.tolist() for b in ids.tolist()):
        assert store.places(span).tolist() == scan(documents, span), span


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2), min_size=0, max_size=30), min_size=1, max_size=5),
    st.lists(st.integers(0, 2), min_size=1, max_size=20),
)
def test_the_longest_span_is_the_longest(documents, text):
    store = Store.of([np.array(d, dtype=np.int32) for d in documents])
    length, places = store.longest(text, 16, 1)
    wanted = max(
        (n for n in range(1, min(16, len(text)) + 1) if scan(documents, text[-n:])), default=0
    )
    assert length == wanted
    assert places.tolist() == (scan(documents, text[-wanted:]) if wanted else [])


def test_nothing_crosses_a_border():
    store = Store.of([np.array([1, 2]), np.array([3, 4, 5])])
    assert not len(store.places([2, 3]))
    (place,) = store.places([1, 2])
    assert store.after(int(place), 4) == []
    (place,) = store.places([3])
    assert store.after(int(place), 9) == [4, 5]
    assert BORDER not in store.after(int(place), 9)


def test_a_span_too_long_or_empty_is_refused():
    with pytest.raises(BadInput, match="span has 17"):
        Store.of([np.arange(40)]).places(list(range(17)))
    with pytest.raises(BadInput, match="span has 0"):
        Store.of([np.arange(4)]).places([])


@pytest.fixture(scope="module")
def model():
    return load("zoo:target")


def test_a_folder_of_text(model, tmp_path):
    (tmp_path / "a.md").write_text("the quick brown fox")
    (tmp_path / "b.bin").write_bytes(b"\x00\xff")
    store = open_store(str(tmp_path), model, 10_000)
    ids = model.encode("quick brown")
    ids = ids[1:] if ids[0] == model.tokenizer.bos_token_id else ids
    assert len(store.tokens) > 3 and "1 files" in store.name
    assert open_store(str(tmp_path), model, 10_000) is store


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds no text"),
        ({"a.bin": b"\x00\xff"}, "holds no text"),
        ({"a.py": b"\xff\xfe"}, "no text"),
    ],
)
def test_a_folder_without_text_is_refused(model, tmp_path, files, said):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=rf"^folder=.*{said}"):
        open_store(str(tmp_path), model, 10_000)


def test_a_missing_folder_is_refused(model, tmp_path):
    with pytest.raises(BadInput, match=r"folder=.*is no folder; name one, or 'stdlib'"):
        open_store(str(tmp_path / "nowhere"), model, 10_000)


def test_the_library_without_what_is_measured_on(model):
    store = open_store("stdlib", model, 60_000)
    assert 60_000 <= len(store) < 70_000
    for prompt in prompts()[:6]:
        ids = model.encode(prompt.text)[-14:]
        assert not len(store.places(ids)), prompt.name


def test_another_tokenizer_has_another_store(model, tmp_path):
    (tmp_path / "a.txt").write_text("one two three")
    words = {"one": 0, "two": 1, "three": 2}

    class Words:
        def __len__(self):
            return len(words)

        def get_vocab(self):
            return words

        def __call__(self, text, **options):
            return {"input_ids": [words[word] for word in text.split()]}

    ours = SimpleNamespace(tokenizer=Words())
    store = open_store(str(tmp_path), ours, 1000)
    assert store.tokens.tolist() == [0, 1, 2, BORDER]
    assert open_store(str(tmp_path), ours, 1000) is store
    words["four"] = 3
    assert open_store(str(tmp_path), ours, 1000) is not store, "its vocabulary has grown"
    assert open_store(str(tmp_path), model, 1000).tokens.tolist() != store.tokens.tolist()
