"""Words: contractions, marks and scripts without blanks."""

from hf_synth.metrics.words import letters_only, ngrams, words


def test_words_and_marks():
    result = words("It's not well-kept \u2014 it\u2019s FAST.")
    assert result == ["it's", "not", "well-kept", "\u2014", "it\u2019s", "fast", "."]
    assert words("  \n") == []
    assert words("Größe, naïve") == ["größe", ",", "naïve"]
    assert words("d3n1 40.5%") == ["d3n1", "40", ".", "5", "%"]


def test_chinese_and_japanese_are_read_a_character_at_a_time_and_korean_and_arabic_by_words():
    assert words("我爱你。") == ["我", "爱", "你", "。"]
    assert words("カナ kana") == ["カ", "ナ", "kana"]
    assert words("AI模型3号") == ["ai", "模", "型", "3", "号"]
    assert words("안녕 세상") == ["안녕", "세상"]
    assert words("سلام دنیا") == ["سلام", "دنیا"]


def test_marks_are_no_words():
    assert letters_only(words("Well — yes, 3!")) == ["well", "yes", "3"]


def test_ngrams():
    assert ngrams("abcd", 2) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert ngrams("ab", 3) == []
