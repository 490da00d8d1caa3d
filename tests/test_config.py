"""The configuration: precedence, complaints that help, and a file that documents every key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.config import ENVIRONMENT, Config, load_config
from collector.errors import CollectorError, ConfigError

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "config.toml"


def keys_of(section: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in section.items():
        if isinstance(value, dict) and value:
            yield from keys_of(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def complaint(path: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(written(path / "config.toml", text))
    return caught.value


def test_config_toml_is_the_defaults() -> None:
    """Loading the file beside the project gives what no file gives."""
    assert load_config(DOCUMENT) == Config()


def test_config_toml_has_every_key_and_no_other() -> None:
    """The file documents exactly the model's keys."""
    in_file = set(keys_of(tomllib.loads(DOCUMENT.read_text(encoding="utf-8"))))
    assert in_file == set(keys_of(Config().model_dump()))


def test_every_key_in_config_toml_has_a_comment() -> None:
    """Each line that sets a key says what it means."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    keys = [line for line in lines if re.match(r"[a-z_]+ = ", line)]
    assert [line for line in keys if "  # " not in line and " # " not in line] == []


def test_comments_name_the_unit_that_the_key_ends_with() -> None:
    """A key in seconds, bytes or rows says so in its comment."""
    units = {"_s": "seconds", "_bytes": "bytes", "_rows": "rows"}
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    for line in lines:
        match = re.match(r"([a-z_]+) = [^#]+# (.*)", line)
        for ending, unit in units.items():
            if match and match[1].endswith(ending) and not match[1].endswith("per_s"):
                assert unit in match[2], line


def test_every_environment_variable_is_in_config_toml() -> None:
    """A person who reads the file learns which variables override it."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [variable for variable in ENVIRONMENT if variable not in text] == []


def test_a_missing_default_file_means_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file the defaults are in force."""
    monkeypatch.chdir(tmp_path)
    assert load_config() == Config()


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """A path that was given and is not there is an error."""
    with pytest.raises(ConfigError, match="There is no configuration file"):
        load_config(tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[sesion]", "Unknown key 'sesion'", "Did you mean session"),
        ("[session]\nflush_intervall_s = 1", "Unknown key 'session.flush_intervall_s'", "flush_interval_s"),
        ("[exchange.binance]\nws = 'x'", "Unknown key 'exchange.binance.ws'", "ws_url"),
        ("[feed]\nqqq = 1", "Unknown key 'feed.qqq'", "Known here: "),
        ("[session]\nflush_interval_s = 0", "'session.flush_interval_s'", "comment"),
        ("[session]\ndata_types = ['price']", "There is no data type 'price'. Did you mean prices", ""),
        ("[api]\nhost = '0.0.0.0'", "only loopback", ""),
        ("[questdb]\nilp_port = 9009", "acknowledges nothing", "QUESTDB_ILP_PORT"),
        ("[questdb]\nmode = 'embeded'", "'questdb.mode'", ""),
        ("[questdb]\nheap_max = '1 gigabyte'", "'questdb.heap_max'", ""),
        ("not toml", "cannot be read", ""),
        ("questdb = 3", "'questdb'", "[questdb]"),
        ("[daemon]\n[[daemon.x]]", "Unknown key 'daemon.x'", ""),
    ],
)
def test_a_mistake_is_named_with_what_was_meant(tmp_path: Path, text: str, message: str, hint: str) -> None:
    """The complaint names the key and, where it can, the nearest one."""
    error = complaint(tmp_path, text)
    assert message in error.message
    assert hint in error.hint


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    """A variable wins over the file, the command line over both."""
    path = written(tmp_path / "config.toml", '[daemon]\ndata_dir = "a"\n[questdb]\npg_user = "file"')
    environment = {"QUESTDB_PG_USER": "environment", "COLLECTOR_DATA_DIR": "b", "USE_CSV_STORAGE": "false"}
    config = load_config(path, environment=environment, overrides={"daemon": {"data_dir": Path("c")}})
    assert (config.questdb.pg_user, config.daemon.data_dir, config.csv.enabled) == ("environment", Path("c"), False)


def test_overrides_that_are_none_change_nothing(tmp_path: Path) -> None:
    """An option that was not given leaves the file in force."""
    path = written(tmp_path / "config.toml", '[daemon]\ndata_dir = "a"')
    assert load_config(path, overrides={"daemon": {"data_dir": None}}).daemon.data_dir == Path("a")


@pytest.mark.parametrize("variable", [name for name in ENVIRONMENT if name.startswith("QUESTDB_")])
def test_a_questdb_variable_means_an_external_server(variable: str) -> None:
    """Somebody who sets an address or a credential means a server of his own, whatever the file's mode."""
    value = "9001" if variable.endswith("PORT") else "x"
    assert load_config(DOCUMENT, environment={variable: value}).questdb.mode == "external"


def test_questdb_stays_off_where_the_file_says_so(tmp_path: Path) -> None:
    """A variable that happens to be set does not turn on what the file turned off."""
    path = written(tmp_path / "config.toml", '[questdb]\nmode = "off"')
    assert load_config(path, environment={"QUESTDB_PG_HOST": "db"}).questdb.mode == "off"


def test_empty_variables_are_as_if_unset() -> None:
    """An empty variable changes nothing, not even the mode."""
    assert load_config(DOCUMENT, environment=dict.fromkeys(ENVIRONMENT, "")) == Config()


def test_a_wrong_variable_is_named_itself() -> None:
    """The complaint is about the variable, not about the file that it overrides."""
    with pytest.raises(ConfigError, match="the environment variable QUESTDB_PG_PORT is wrong"):
        load_config(DOCUMENT, environment={"QUESTDB_PG_PORT": "abc"})


def test_passwords_are_masked_when_shown() -> None:
    """Neither repr nor dump gives a password away."""
    config = load_config(DOCUMENT, environment={"QUESTDB_PG_PASSWORD": "hunter2"})
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(config.model_dump(mode="json"))
    assert config.questdb.pg_password.get_secret_value() == "hunter2"


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_file_gives_a_configuration_or_a_config_error(content: bytes) -> None:
    """Whatever stands in the file, the answer is a configuration or a sentence."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_bytes(content)
        try:
            assert isinstance(load_config(path), Config)
        except CollectorError as error:
            assert error.message
