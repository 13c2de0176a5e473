"""Certificates and keys that cannot be used: the error names the file and says what to do."""

import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.tls import BadCertificate, check_readable, load_authorities, load_chain

MakePair = Callable[..., tuple[str, str]]


@pytest.fixture
def pair(tmp_path: Path) -> MakePair:
    """Makes a self-signed certificate and its key, with a passphrase if one is given."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")

    def make(name: str, passphrase: str = "") -> tuple[str, str]:
        certificate, key = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        protection = ["-passout", f"pass:{passphrase}"] if passphrase else ["-nodes"]
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "1"]
        files = ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run([*command, *protection, *files], check=True, capture_output=True)
        return str(certificate), str(key)

    return make


def load(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_chain(context, certificate, key)
    return context


def test_certificate_with_its_key_is_loaded(pair: MakePair) -> None:
    assert load(*pair("one"))


def test_key_with_a_passphrase_is_refused_with_advice(pair: MakePair) -> None:
    certificate, key = pair("one", "hunter2")
    with pytest.raises(BadCertificate, match=f"the key in {key} has a passphrase.*openssl pkey"):
        load(certificate, key)


def test_key_of_another_certificate_is_called_that(pair: MakePair) -> None:
    certificate, _ = pair("one")
    _, key = pair("two")
    with pytest.raises(BadCertificate, match=f"{certificate} and {key}.*the key does not belong to the certificate"):
        load(certificate, key)


@pytest.mark.parametrize("which", [0, 1])
def test_file_that_cannot_be_read_is_named(pair: MakePair, which: int, tmp_path: Path) -> None:
    for wrong, reason in ((tmp_path, "Is a directory"), (tmp_path / "none", "No such file")):
        files = list(pair("one"))
        files[which] = str(wrong)
        with pytest.raises(BadCertificate, match=f"cannot read {wrong}: {reason}"):
            load(*files)


def test_file_without_pem_is_named(pair: MakePair, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no certificate\n")
    certificate, key = pair("one")
    for files in ((str(text), key), (certificate, str(text))):
        with pytest.raises(BadCertificate, match=str(text)):
            load(*files)
    with pytest.raises(BadCertificate, match=f"{text} has no certificates of authorities"):
        load_authorities(str(text))


def test_authorities_are_the_systems_or_those_of_the_file(pair: MakePair, tmp_path: Path) -> None:
    assert load_authorities("")
    assert len(load_authorities(pair("one")[0]).get_ca_certs()) == 1
    with pytest.raises(BadCertificate, match=f"cannot read {tmp_path}: Is a directory"):
        load_authorities(str(tmp_path))


def test_unreadable_file_raises_the_error_that_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="cannot read"):
        check_readable(str(tmp_path / "none"), KeyError)
