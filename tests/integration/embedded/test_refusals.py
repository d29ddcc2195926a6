"""Starts that cannot succeed are refused with a message that gives the reason and the remedy."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from reference_manager.embedded import EmbeddedPostgres, EmbeddedPostgresError


def test_a_second_manager_on_the_same_folder_is_refused(used_dir: Path) -> None:
    """The first manager is not disturbed, even after the second has stopped."""
    with EmbeddedPostgres(used_dir, durable=False) as first:
        second = EmbeddedPostgres(used_dir)
        with pytest.raises(EmbeddedPostgresError, match=rf"in use by another manager \(process {os.getpid()}\)"):
            second.start()
        second.stop()
        assert first.url
        assert (used_dir / "postgres" / "postmaster.pid").exists()


def test_data_of_another_major_version_is_refused(used_dir: Path) -> None:
    """The message names both versions, and the data is not changed."""
    (used_dir / "postgres" / "PG_VERSION").write_text("13\n")
    with pytest.raises(EmbeddedPostgresError, match=r"created by PostgreSQL 13, but .* has PostgreSQL"):
        EmbeddedPostgres(used_dir).start()


def test_a_failed_start_quotes_the_server_log(used_dir: Path) -> None:
    """The message contains the reason from the log, and the folder is free again."""
    with pytest.raises(EmbeddedPostgresError, match='unrecognized configuration parameter "wrong_name"'):
        EmbeddedPostgres(used_dir, settings={"wrong_name": "1"}).start()
    with EmbeddedPostgres(used_dir, durable=False):
        pass


def test_a_failed_creation_quotes_initdb(data_dir: Path) -> None:
    """The message quotes the output of broken binaries, and no partial cluster remains."""
    binaries = data_dir.with_name("binaries")
    binaries.mkdir()
    for name in ("postgres", "initdb"):
        program = binaries / name
        program.write_text("#!/bin/sh\necho 'a library is missing'\nexit 3\n")
        program.chmod(0o755)
    with pytest.raises(EmbeddedPostgresError, match=r"initdb failed \(exit code 3\):\na library is missing"):
        EmbeddedPostgres(data_dir, binaries=binaries).start()
    assert not list(data_dir.glob("postgres*/"))


def test_a_missing_password_file_is_named(used_dir: Path) -> None:
    """Without its password the cluster cannot be opened, and the message names the missing file."""
    (used_dir / "postgres.password").unlink()
    with pytest.raises(EmbeddedPostgresError, match=r"postgres\.password is missing"):
        EmbeddedPostgres(used_dir).start()


def test_a_folder_with_other_content_is_refused(data_dir: Path) -> None:
    """A folder named postgres that is not a cluster is never overwritten."""
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "notes.txt").write_text("mine")
    with pytest.raises(EmbeddedPostgresError, match="is not a PostgreSQL data folder"):
        EmbeddedPostgres(data_dir).start()
    assert (data_dir / "postgres" / "notes.txt").read_text() == "mine"


def test_a_start_outside_the_main_thread_is_refused(data_dir: Path) -> None:
    """The kernel ends the server with the thread that started it, so only the main thread may start it."""
    with ThreadPoolExecutor() as pool, pytest.raises(EmbeddedPostgresError, match="main thread"):
        pool.submit(EmbeddedPostgres(data_dir).start).result()


def test_a_data_folder_that_cannot_be_created_is_refused(data_dir: Path) -> None:
    """The message says that the folder cannot be made, for example because a file has its name."""
    data_dir.touch()
    with pytest.raises(EmbeddedPostgresError, match="cannot be created"):
        EmbeddedPostgres(data_dir).start()
