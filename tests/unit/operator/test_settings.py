"""What the operator itself can be told by its environment, and what it says to what it does not understand."""

from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest
from posttrain_operator.settings import STAGES, Settings, SettingsError, from_environment

EVERY: dict[str, tuple[str, Any]] = {
    "hub_endpoint": ("https://hub.example", "https://hub.example"),
    "progress_interval": ("20s", timedelta(seconds=20)),
    "first_backoff": ("0s", timedelta()),
    "longest_backoff": ("1h30m", timedelta(hours=1, minutes=30)),
    "termination_grace": ("2m", timedelta(minutes=2)),
    "queue_grace": ("90s", timedelta(seconds=90)),
    "queue_hold": ("1d", timedelta(days=1)),
    "sweep_interval": ("5m", timedelta(minutes=5)),
    "namespaces": ("a, b-2,,c ", ("a", "b-2", "c")),
    "lease_namespace": ("system", "system"),
    "lease_name": ("other", "other"),
    "identity": ("me", "me"),
    "port": ("9090", 9090),
    "log_level": ("debug", "debug"),
}
"""Each setting as it is written, and as it is meant."""
SPANS = ("progress_interval", "first_backoff", "longest_backoff", "termination_grace", "queue_grace", "queue_hold")

BAD: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*SPANS, "sweep_interval"), ("", "5", "5 s", "-5s", "1.5h", "s", "5s\n", "٣s", "9999999s")),
    **dict.fromkeys(("hub_endpoint", "lease_namespace", "lease_name", "identity"), ("",)),
    "namespaces": ("team-*", "A", "a b", "a;b", "-a", "a" * 64),
    "port": ("", "0", "65536", "-1", "http", "80.0"),
    "log_level": ("", "INFO", "trace", "10"),
}


def variable(name: str) -> str:
    return f"POSTTRAIN_{name.upper()}"


def test_without_variables_everything_has_a_default() -> None:
    assert from_environment({"PATH": "/bin", "posttrain_port": "1", "POSTTRAINER": "x"}) == Settings()


def test_every_setting_but_those_of_the_local_executor_has_a_variable() -> None:
    assert set(EVERY) == {field.name for field in fields(Settings)} - {"images", "file_uris"}


@pytest.mark.parametrize("name", EVERY)
def test_each_setting_is_read_from_its_variable(name: str) -> None:
    text, meant = EVERY[name]
    settings = from_environment({variable(name): text})
    assert getattr(settings, name) == meant
    others = {field.name: getattr(settings, field.name) for field in fields(Settings) if field.name != name}
    assert others == {key: getattr(Settings(), key) for key in others}


@pytest.mark.parametrize("stage", STAGES)
def test_the_image_of_each_stage_is_read_from_its_variable(stage: str) -> None:
    images = from_environment({variable(f"image_{stage}"): "registry.example/x@sha256:0"}).images
    assert images == {**Settings().images, stage: "registry.example/x@sha256:0"}


@pytest.mark.parametrize("name", BAD)
def test_a_value_that_cannot_be_used_is_told_with_its_variable(name: str) -> None:
    for text in BAD[name]:
        with pytest.raises(SettingsError) as error:
            from_environment({variable(name): text})
        assert str(error.value).startswith(f"{variable(name)}: must ")
        assert f"found {text!r}" in str(error.value)


@pytest.mark.parametrize("name", ["progress_interval", "sweep_interval"])
def test_nothing_is_done_without_a_pause(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{variable(name)}: must be longer than nothing, found '0s'$"):
        from_environment({variable(name): "0s"})


def test_an_empty_image_is_none() -> None:
    with pytest.raises(SettingsError, match=r"^POSTTRAIN_IMAGE_RL: must not be empty"):
        from_environment({"POSTTRAIN_IMAGE_RL": ""})


def test_an_unknown_setting_is_told_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"^POSTTRAIN_PORTS: there is no such setting; ") as error:
        from_environment({"POSTTRAIN_PORTS": "1"})
    for name in EVERY:
        assert variable(name) in str(error.value)


def test_an_unknown_stage_is_told_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"^POSTTRAIN_IMAGE_TRAIN: there is no stage train; ") as error:
        from_environment({"POSTTRAIN_IMAGE_TRAIN": "x"})
    for stage in STAGES:
        assert stage in str(error.value)


def test_file_uris_are_for_the_local_executor_alone() -> None:
    with pytest.raises(SettingsError, match="POSTTRAIN_FILE_URIS"):
        from_environment({"POSTTRAIN_FILE_URIS": "true"})


def test_what_kubernetes_tells_of_a_service_of_the_same_name_is_no_setting() -> None:
    service = {
        "POSTTRAIN_OPERATOR_SERVICE_HOST": "10.0.0.7",
        "POSTTRAIN_OPERATOR_SERVICE_PORT": "8080",
        "POSTTRAIN_OPERATOR_SERVICE_PORT_METRICS": "8080",
        "POSTTRAIN_OPERATOR_PORT": "tcp://10.0.0.7:8080",
        "POSTTRAIN_OPERATOR_PORT_8080_TCP": "tcp://10.0.0.7:8080",
        "POSTTRAIN_OPERATOR_PORT_8080_TCP_PROTO": "tcp",
        "POSTTRAIN_OPERATOR_PORT_8080_TCP_PORT": "8080",
        "POSTTRAIN_OPERATOR_PORT_8080_TCP_ADDR": "10.0.0.7",
    }
    assert from_environment(service) == Settings()


def test_each_process_has_an_identity_of_its_own() -> None:
    identity = Settings().identity
    assert identity == Settings().identity
    assert identity.rpartition("-")[2].isdecimal()
