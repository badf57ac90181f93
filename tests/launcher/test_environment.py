"""Names that stand in an environment for other reasons than TGI's: SageMaker's, log filters."""

import re

import pytest
from backplane_launcher import cli
from backplane_launcher.adapter_names import parse_adapters
from backplane_launcher.catalogue import Catalogue
from backplane_launcher.log_filter import level_of
from backplane_launcher.settings import LaunchSettings
from backplane_launcher.usage import UsageError
from hypothesis import given
from hypothesis import strategies as st

SAGEMAKER = {
    "HF_MODEL_ID": "a/b",
    "HF_MODEL_REVISION": "v1",
    "SM_NUM_GPUS": "4",
    "HF_MODEL_QUANTIZE": "gptq",
    "HF_MODEL_TRUST_REMOTE_CODE": "true",
}
FROM_SAGEMAKER = {
    "model_id": "a/b",
    "revision": "v1",
    "num_shard": 4,
    "quantize": "gptq",
    "trust_remote_code": True,
}


@pytest.fixture(autouse=True)
def catalogue(monkeypatch):
    monkeypatch.setattr(
        Catalogue, "load", classmethod(lambda cls, pythons: cls(facts=(), pythons=pythons))
    )


def settings_of(environ, *argv):
    return cli.parse(argv, environ).settings


def test_sagemakers_names_stand_in_for_the_plain_ones():
    settings = settings_of(SAGEMAKER)
    assert {name: getattr(settings, name) for name in FROM_SAGEMAKER} == FROM_SAGEMAKER
    assert settings.port == 3000, "the names alone are no container of SageMaker's"


@pytest.mark.parametrize("name", ["MODEL_ID", "BACKPLANE_MODEL_ID"])
def test_the_plain_names_go_before_them(name):
    assert settings_of({**SAGEMAKER, name: "c/d"}).model_id == "c/d"
    assert settings_of({"HF_MODEL_ID": "a/b", "MODEL_ID": ""}).model_id == "a/b"
    assert settings_of(SAGEMAKER, "--model-id", "e/f").model_id == "e/f"


@pytest.mark.parametrize(
    ("environ", "argv", "port"),
    [
        ({"SAGEMAKER_REGION": "x"}, (), 8080),
        ({"SAGEMAKER_BIND_TO_PORT": "9999"}, (), 9999),
        ({"SAGEMAKER_BIND_TO_PORT": ""}, (), 8080),
        ({"SAGEMAKER_BIND_TO_PORT": " ", "SAGEMAKER_REGION": "x"}, (), 8080),
        ({"SAGEMAKER_REGION": "x", "PORT": "80"}, (), 80),
        ({"SAGEMAKER_REGION": "x", "PORT": "tcp://10.0.0.1:80"}, (), 8080),
        ({"SAGEMAKER_REGION": "x"}, ("--port", "81"), 81),
        ({"SM_NUM_GPUS": "1"}, (), 3000),
    ],
)
def test_the_port_on_sagemaker(environ, argv, port):
    assert settings_of(environ, *argv).port == port


def test_the_word_that_sagemaker_starts_containers_with():
    assert settings_of({"SAGEMAKER_REGION": "x"}, "serve").port == 8080
    with pytest.raises(UsageError, match="serve stands alone"):
        cli.parse(["serve"], {})


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("info", "info"),
        ("INFO", "info"),
        ("warn", "warning"),
        ("trace", "debug"),
        ("off", "error"),
        ("info,text_generation_router=debug", "debug"),
        ("warn, text_generation_launcher=info ,hyper=trace", "info"),
        ("error,backplane_server=warn", "warning"),
        ("debug,text_generation_router=error", "debug"),
        ("text_generation_router", "debug"),
        ("backplane", "debug"),
        ("warn,backplane_server", "debug"),
        ("hyper", None),
        ("hyper=debug", "info"),
        ("info,", "info"),
        ("text_generation_router[span]=debug", "debug"),
        ("loud", None),
        ("=", None),
        (",", None),
        ("hyper=loud", None),
    ],
)
def test_the_level_of_a_filter(text, level):
    assert level_of(text) == level


def test_a_log_level_that_is_none_is_passed_over_with_a_warning():
    command = cli.parse([], {"LOG_LEVEL": "loud"})
    assert command.settings == LaunchSettings()
    (warning,) = command.warnings
    assert warning == (
        "LOG_LEVEL=loud names no level of a log and is ignored; what is taken: trace, debug, info, "
        "warn, warning, error, critical, off, or a filter such as info,text_generation_router=debug"
    )
    for word in re.findall(r"[a-z]+", warning.partition("taken: ")[2].partition(", or")[0]):
        assert cli.parse([], {"LOG_LEVEL": word}).warnings == ()
    assert settings_of({"LOG_LEVEL": "info,text_generation_router=debug"}).log_level == "debug"
    assert settings_of({"BACKPLANE_LOG_LEVEL": "warn", "LOG_LEVEL": "debug"}).log_level == "warning"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BACKPLANE_MAX_TOTAL_TOKNS", "; did you mean BACKPLANE_MAX_TOTAL_TOKENS?"),
        ("BACKPLANE_COLOUR_OF_THE_SKY", ""),
    ],
)
def test_a_variable_with_our_prefix_that_nothing_reads_is_told_once(name, meant):
    command = cli.parse([], {name: "1"})
    assert command.settings == LaunchSettings()
    assert command.warnings == (f"{name} is no variable of Backplane's and is ignored{meant}",)


@pytest.mark.parametrize(
    "name",
    [
        "BACKPLANE_EXTRA_PLUGINS",
        "BACKPLANE_CACHE",
        "BACKPLANE_MAX_INPUT_LENGTH",
        "BACKPLANE_SERVICE_HOST",
        "BACKPLANE_SERVICE_PORT_HTTP",
        "BACKPLANE_PORT_3000_TCP_ADDR",
        "BACKPLANE_GATEWAY_PORT_80_TCP",
    ],
)
def test_variables_that_are_read_or_that_kubernetes_sets_are_not(name):
    assert cli.parse([], {name: "1"}).warnings == ()


@pytest.mark.parametrize("name", ["PROMETHEUS_PORT", "MASTER_PORT", "PORT", "HOSTNAME"])
def test_service_links_are_passed_over_whatever_flag_they_hit(name):
    command = cli.parse([], {name: "tcp://10.0.0.7:9090"})
    assert command.settings == LaunchSettings()
    assert command.notices == ()
    (warning,) = command.warnings
    assert warning == (
        f"{name}=tcp://10.0.0.7:9090 looks like a Kubernetes service link and is ignored"
    )


@pytest.mark.parametrize(
    "name", ["ENV", "URL", "TYPE", "JSON", "TOKENS", "GAMMA", "REQUEST_TIMEOUT", "SSL_CERTFILE"]
)
def test_names_too_common_are_not_read(name):
    assert settings_of({name: "production"}) == LaunchSettings()


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        ("--tgi-strict", "tgi_strict", True),
        ("--strict-model-name", "strict_model_name", True),
        ("--open-routes metrics,info --open-routes /v1/models", "open_routes",
         ("metrics", "info", "/v1/models")),
        ("--tool-call-parser hermes", "tool_call_parser", "hermes"),
        ("--reasoning-parser think", "reasoning_parser", "think"),
        ("--api-key-file k", "api_key_file", "k"),
        ("--request-timeout 2.5", "request_timeout", 2.5),
        ("--ctx-size 4096", "max_total_tokens", 4096),
        ("--max-model-len 4096", "max_total_tokens", 4096),
        ("--compute-type x", "compute_type", "x"),
        ("--docker-label x", "docker_label", "x"),
    ],
)  # fmt: skip
def test_flags_of_our_own(argv, name, value):
    assert getattr(settings_of({}, *argv.split()), name) == value


@pytest.mark.parametrize(
    ("environ", "name", "value"),
    [
        ({"OPEN_ROUTES": "metrics, info"}, "open_routes", ("metrics", "info")),
        ({"COMPUTE_TYPE": "1-nvidia-a10g"}, "compute_type", "1-nvidia-a10g"),
        ({"DOCKER_LABEL": "sha-1"}, "docker_label", "sha-1"),
        ({"CTX_SIZE": "4096"}, "max_total_tokens", 4096),
        ({"BACKPLANE_REQUEST_TIMEOUT": "3"}, "request_timeout", 3.0),
    ],
)
def test_variables_of_our_own(environ, name, value):
    assert getattr(settings_of(environ), name) == value


def test_a_certificate_goes_by_either_name_and_never_without_its_key():
    for pair in (("--tls-cert-file", "--tls-key-file"), ("--ssl-certfile", "--ssl-keyfile")):
        settings = settings_of({}, pair[0], "c", pair[1], "k")
        assert (settings.tls_cert_file, settings.tls_key_file) == ("c", "k")
    with pytest.raises(UsageError, match="give --tls-key-file too"):
        cli.parse(["--tls-cert-file", "c"], {})
    with pytest.raises(UsageError, match="give --tls-cert-file too"):
        cli.parse(["--tls-key-file", "k"], {})


@given(st.text(alphabet="acdeghinorstuw_=,[] \0é", max_size=40))
def test_any_text_is_a_level_or_none(text):
    assert level_of(text) in {None, "debug", "info", "warning", "error"}


@given(st.lists(st.text(alphabet="ab=@/. \0é", max_size=12), max_size=3))
def test_any_text_is_an_adapter_or_refused(texts):
    try:
        adapters = parse_adapters(texts)
    except UsageError:
        return
    assert len({adapter.name for adapter in adapters}) == len(adapters) == len(texts)
    for adapter in adapters:
        assert adapter.name.strip() == adapter.name != ""
        assert adapter.origin.strip() == adapter.origin != ""
        assert adapter.revision != ""
