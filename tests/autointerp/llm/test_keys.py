"""Where requests go, with which key, and what a service is called in what is kept of it."""

import pytest

from autointerp.llm.anthropic_api import AnthropicAPI
from autointerp.llm.keys import checked_url, find_key, variables
from autointerp.llm.openai_compatible import OpenAICompatible
from store.errors import UsageError

SECRET = "sk-very-secret-0123"
UNREADABLE = ["http://[::1", "http://localhost:abc/v1", "http://localhost:99999/v1", "http://localhost:-1/v1"]


class TestKeys:
    def test_each_service_has_its_own_variable_and_ours_comes_first(self):
        assert variables("https://openrouter.ai/api/v1") == ("MONOSEM_LLM_KEY", "OPENROUTER_API_KEY")

    @pytest.mark.parametrize("url", ["http://api.openai.com/v1", "https://api.openai.com.evil.org/v1"])
    def test_a_service_key_goes_to_that_service_over_https_and_nowhere_else(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        assert find_key("https://api.openai.com/v1") == SECRET
        with pytest.raises(UsageError, match="no key"):
            find_key(url)

    def test_no_key_names_the_variables_and_a_way_without(self):
        with pytest.raises(UsageError, match="OPENAI_API_KEY or MONOSEM_LLM_KEY, or use a backend that needs none"):
            find_key("https://api.openai.com/v1")

    def test_this_machine_needs_none(self):
        assert find_key("http://localhost:8000/v1") is None

    @pytest.mark.parametrize("held", ["two\nlines", "a b", "schlüssel"])
    def test_what_cannot_be_a_key_is_refused_unshown(self, held: str, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("MONOSEM_LLM_KEY", held)
        with pytest.raises(UsageError, match="MONOSEM_LLM_KEY") as error:
            find_key("https://api.openai.com/v1")
        assert held not in str(error.value)

    @pytest.mark.parametrize(
        "url", ["localhost:8000", "ftp://x/v1", "https://u:p@x/v1", "https://x/v1?key=1", "", *UNREADABLE]
    )
    def test_an_address_that_is_none_or_holds_a_secret_is_refused(self, url: str):
        with pytest.raises(UsageError):
            checked_url(url)

    @pytest.mark.parametrize("url", UNREADABLE)
    def test_an_address_that_cannot_be_read_says_what_one_looks_like(self, url: str):
        with pytest.raises(UsageError, match=r"give one like http://localhost:8000/v1"):
            OpenAICompatible("tiny", url)


class TestNames:
    """Of a reply's identity: where two services may answer otherwise, their names differ."""

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("https://openrouter.ai/api/v1/", "openrouter.ai/api/v1"),
            ("https://OPENROUTER.ai:443/api/v1", "openrouter.ai/api/v1"),
            ("https://gateway.example/team-a/v1", "gateway.example/team-a/v1"),
            ("http://gateway.example/team-a/v1", "http://gateway.example/team-a/v1"),
            ("http://localhost:8000/v1", "http://localhost:8000/v1"),
            ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ],
    )
    def test_the_whole_address_counts_however_it_is_spelled(self, url: str, shown: str):
        assert OpenAICompatible("m", url).name == f"openai_compatible:m@{shown}"
        assert AnthropicAPI("m", url).name == f"anthropic_api:m@{shown}"

    @pytest.mark.parametrize("url", ["https://api.anthropic.com", "https://api.anthropic.com:443/"])
    def test_the_service_s_own_address_goes_without_saying(self, url: str):
        assert AnthropicAPI("m", url).name == "anthropic_api:m"
