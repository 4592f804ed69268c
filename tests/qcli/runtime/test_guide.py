"""Constraints and thoughts together: what comes of what a model wants to say, token by token."""

from __future__ import annotations

import pytest
import vocabularies

from qcli.constraints.constraint import constraint
from qcli.constraints.matcher import Matcher
from qcli.constraints.vocabulary import Vocabulary
from qcli.errors import QcliError
from qcli.runtime.guide import Guide
from qcli.runtime.stats import Stats
from qcli.runtime.thought_closer import ThoughtCloser
from qcli.text.think_tags import find_think_tags
from qcli.text.thoughts import Thought, answer_parser
from qcli.text.tokenizer import Tokenizer

TAGS = ("<think>", "</think>")
HARMONY = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>")
FINAL = "<|end|><|start|>assistant<|channel|>final<|message|>"
END = "<|im_end|>"
ENOUGH = "Enough.</think>\n\n"
YES = constraint(schema={"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]})
NUMBER = constraint(regex="[0-9]+")


class Told:
    """A model that wants to say something, and is held to a constraint."""

    def __init__(self, path, special, prompt, wanted, budget=None, words=ENOUGH, opens=True):
        self.tokenizer = Tokenizer.from_gguf(vocabularies.of_bytes(path, dict.fromkeys((*special, END), 3), eos=END))
        tags = find_think_tags(self.tokenizer, "<think></think>")
        parser = answer_parser(self.tokenizer, tags, prompt)
        closer = ThoughtCloser(parser, lambda: self.tokenizer.encode(words), budget)
        vocabulary = Vocabulary(self.tokenizer.text_bytes(), self.tokenizer.encode_after)
        openings = [self.tokenizer.encode("<think>")] if opens else []
        self.end = self.tokenizer.special_id(END)
        self.stats = Stats()
        self.guide = Guide(
            parser,
            closer,
            vocabulary,
            lambda: Matcher(vocabulary, wanted.grammar, wanted.is_json),
            frozenset({self.end}),
            openings,
            self.stats,
        )
        self.allowed = lambda mask, id: vocabulary.has(mask, id)
        self.forced = 0

    def says(self, text, begun=0):
        """Thoughts and answer; where it may not say what it wants to say next, the last id that is allowed.

        begun: ids that were said before.
        """
        wanted = [*self.tokenizer.encode(text), self.end]
        pieces = [piece for id in wanted[:begun] for piece in self.guide.push(id)]
        wanted = wanted[begun:]
        for _ in range(300):
            id = self.guide.next_id()
            self.forced += id is not None
            if id is None:
                mask = self.guide.mask()
                able = [id for id in range(self.tokenizer.vocab_size) if self.allowed(mask, id)]
                id = wanted[0] if wanted[0] in able else able[-1]  # control tokens are the last
            if wanted[0] == id and len(wanted) > 1:
                wanted.pop(0)
            if id == self.end:
                break
            pieces += self.guide.push(id)
            if self.guide.is_over:
                break
        pieces += self.guide.flush()
        thoughts = "".join(piece for piece in pieces if isinstance(piece, Thought))
        return thoughts, "".join(piece for piece in pieces if not isinstance(piece, Thought))


@pytest.fixture
def told(tmp_path):
    return lambda *given, **more: Told(tmp_path / "v.gguf", *given, **more)


@pytest.mark.parametrize("special", [TAGS, ()])
@pytest.mark.parametrize(
    ("prompt", "said", "thoughts", "answer"),
    [
        ("", '{"yes":true}', "", '{"yes":true}'),
        ("", '<think>hm {"no"</think>{"yes":true}', '<think>hm {"no"</think>', '{"yes":true}'),
        ("<think>\n", 'hm</think>\n\n{"yes":true}', "hm</think>", '\n\n{"yes":true}'),
        ("<think>\n\n</think>\n\n", '{"yes":false} and more', "", '{"yes":false}'),
    ],
)
def test_the_answer_is_held_from_where_its_thoughts_end(told, special, prompt, said, thoughts, answer):
    model = told(special, prompt, YES, opens="</think>" not in prompt)
    assert model.says(said) == (thoughts, answer)
    assert model.stats.fits
    assert model.forced >= 3


def test_a_thought_that_the_prompt_closed_does_not_come_again(told):
    model = told(TAGS, "<think>\n\n</think>\n\n", NUMBER, opens=False)
    assert model.says("<think>hm</think>7")[0] == ""
    assert model.stats.fits


def test_a_tag_that_is_spelled_and_turns_out_to_be_none(told):
    model = told((), "", constraint(regex="<[a-z]+!"))
    assert model.says("<thank!") == ("", "<thank!")
    assert model.stats.fits


@pytest.mark.parametrize("special", [TAGS, ()])
def test_a_budget_ends_the_thought_and_the_form_begins(told, special):
    model = told(special, "<think>\n", YES, budget=4)
    thoughts, answer = model.says('hm, I wonder whether {"yes":true}')
    assert thoughts == "hm, Enough.</think>"
    assert answer.lstrip("\n").startswith('{"yes":')
    assert model.stats.fits


def test_white_space_of_the_closing_words_is_no_part_of_the_form(told):
    model = told(TAGS, "<think>\n", YES, budget=2, words="Enough.</think> \n ")
    assert model.says('hmm {"yes":true}')[1].split() == ['{"yes":true}']
    assert model.stats.fits


def test_the_answer_does_not_end_within_a_thought(told):
    model = told(TAGS, "<think>\n", YES)
    thoughts, answer = model.says("hm")  # and then its turn would end
    assert "<|im_end|>" not in thoughts + answer
    assert not model.stats.fits or answer


def test_the_end_may_come_where_the_form_is_whole_and_nowhere_else(told):
    assert told((), "", NUMBER).says("12") == ("", "12")
    model = told((), "", NUMBER)
    assert model.says("x") != ("", "")
    over = told((), "", YES)
    assert over.says('{"yes":true}') == ("", '{"yes":true}')
    assert over.guide.is_over


def test_the_last_token_of_a_spelled_tag_may_bring_text_with_it(told):
    model = told((), "<think>", constraint(regex="qz7"))
    assert model.says("hm</think>qz7") == ("hm</think>", "qz7")


@pytest.mark.parametrize("special", [TAGS, ()])
def test_an_answer_that_was_begun_goes_on(told, special):
    text = '<think>hm</think>\n{"yes":true}'
    size = len(told(special, "", YES).tokenizer.encode(text))
    for cut in range(size):
        model = told(special, "", YES)
        assert "".join(model.says(text, cut)) == text, cut
        assert model.stats.fits


def test_one_that_was_begun_otherwise_is_refused(told):
    with pytest.raises(QcliError, match="does not fit"):
        told(TAGS, "", YES).says("Of course", begun=3)


@pytest.mark.parametrize(
    ("prompt", "said", "thoughts"),
    [
        ("<|start|>assistant", "<|channel|>analysis<|message|>hm" + FINAL + '{"yes":true}', "<think>hm</think>"),
        ("<|start|>assistant", '<|channel|>final<|message|>{"yes":true}', ""),
        ("<|start|>assistant<|channel|>final<|message|>", '{"yes":true}', ""),
        ("<|start|>assistant", 'final<|message|>{"yes":true}', ""),  # a channel is named in any case
    ],
)
def test_in_harmony_the_final_message_is_held(told, prompt, said, thoughts):
    model = told(HARMONY, prompt, YES, words=FINAL, opens=False)
    assert model.says(said) == (thoughts, '{"yes":true}')
    assert model.stats.fits


def test_in_harmony_a_budget_leads_to_the_final_message(told):
    model = told(HARMONY, "<|start|>assistant", YES, budget=3, words=FINAL, opens=False)
    thoughts, answer = model.says("<|channel|>analysis<|message|>hm, this is hard")
    assert thoughts == "<think>hm,</think>"
    assert answer.startswith('{"yes":')
