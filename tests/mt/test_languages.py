"""Codes of languages, and what BLEU takes of them."""

import pytest

from mt.languages import CODES, COUNTRIES, TOKENIZATIONS, tokenization_for
from mt.metrics import CorpusBLEU


@pytest.mark.parametrize("language", [None, "en", "de", "vi", "DE", "pt_BR", "deu", "ger", "hsb", "arz", "kau", "srp_Cyrl", "tw"])
def test_languages_with_spaces_take_13a(language: str | None) -> None:
    assert tokenization_for(language) == "13a"


@pytest.mark.parametrize(
    "language",
    ["zh", "zh-TW", "zh_cn", "ZH", "zh-Hant-HK", "zho", "chi", "cmn", "wuu", "nan", "hak", "lzh", "yue_Hant", "gan", "hsn"],
)
def test_chinese_takes_zh(language: str) -> None:
    assert tokenization_for(language) == "zh"
    assert CorpusBLEU(language).tokenization == "zh"


@pytest.mark.parametrize(("language", "tokenization"), [("ja", "ja-mecab"), ("ko-KR", "ko-mecab")])
def test_japanese_and_korean_take_mecab_where_it_is_installed(
    language: str, tokenization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mt.languages.find_spec", lambda _: None)
    assert tokenization_for(language) == "char"
    monkeypatch.setattr("mt.languages.find_spec", lambda _: object())
    assert tokenization_for(language) == tokenization


def test_languages_without_spaces_take_characters_and_an_explicit_choice_wins() -> None:
    assert {tokenization_for(language) for language in ("th", "khm_Khmr", "bur", "tib", "shn")} == {"char"}
    assert CorpusBLEU("zh", tokenization="char").tokenization == "char"


@pytest.mark.parametrize("language", ["Chinese", "", "z", "zh cn", "zh-", "xx", "english", "qqq", "zh--TW"])
def test_a_language_that_is_no_code_is_refused(language: str) -> None:
    with pytest.raises(ValueError, match=f"'{language}' is no code of a language; write it as in de, zh or zh-TW, or name a tok"):
        tokenization_for(language)


@pytest.mark.parametrize(("language", "meant"), [("cn", "zh"), ("jp", "ja"), ("KR", "ko"), ("cn-Hans", "zh"), ("kh", "km")])
def test_a_country_that_passes_for_a_language_is_told_its_language(language: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"tokenization: '{language}' is no code of a language: did you mean {meant}\?"):
        CorpusBLEU(language)


def test_every_code_that_is_named_is_one() -> None:
    assert {code for codes, _, _ in TOKENIZATIONS for code in codes.split()} | set(COUNTRIES.values()) <= CODES
    assert {len(code) for code in CODES} == {2, 3}
    assert not CODES & set(COUNTRIES) - {"kr"}
