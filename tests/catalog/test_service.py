"""What a name means, who may see what, and what nobody may change."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.catalog.conftest import FileServer, MakeCatalog, person, row_of, spec_of

from nexus.access.types import Scope
from nexus.catalog import storage
from nexus.catalog.errors import (
    AliasMoved,
    AliasNotFound,
    CatalogueModel,
    LicenceRefused,
    ModelDamaged,
    ModelExists,
    ModelInUse,
    ModelNotFound,
    ModelNotPulled,
    ModelRefused,
)
from nexus.catalog.jobs import HANDLERS
from nexus.catalog.service import CatalogService
from nexus.catalog.tables import VersionRow
from nexus.catalog.types import ModelVersion, State
from nexus.core.services import Services
from nexus.storage.db import Database

CONTENT = os.urandom(10_000)
A, B = person("prj_a"), person("prj_b")


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "x.bin").write_bytes(CONTENT)
    return tmp_path / "mirror"


def far_row(name: str = "far", **changes: object):
    return row_of(spec_of(os.urandom(8), "m.bin", {"kind": "url", "url": "http://127.0.0.1:9/x"}), name=name, **changes)


async def trained(catalog: CatalogService, tmp_path: Path, who=A, name: str = "churn", **changes) -> ModelVersion:
    path = tmp_path / "model.txt"
    path.write_bytes(os.urandom(500))
    values = {"kind": "analytics", "task": "predict", "files": {"model": path}, "meta": {"target": "churned"}}
    return await catalog.add_version(who, name, **(values | changes))


async def test_what_is_near_is_found_at_once_and_what_is_far_says_how_to_get_it(
    database: Database, make_catalog: MakeCatalog, mirror: Path
) -> None:
    near = row_of(spec_of(CONTENT, "model.bin"), name="near", meta={"labels": ["a"]}, memory=123)
    catalog = make_catalog(database, near, far_row(), offline=True, model_sources=[str(mirror)])
    found = await catalog.find("near")
    assert (found.model, found.version, found.state, found.meta, found.memory) == (
        "near", 1, State.READY, {"labels": ["a"]}, 123,
    )  # fmt: skip
    assert found.files["model"].read_bytes() == CONTENT
    assert found.key == "near@1"
    assert await catalog.find("near") is found
    with pytest.raises(ModelNotPulled) as caught:
        await catalog.find("far")
    assert "nexus models pull far" in caught.value.message
    for missing in ({"name": "nothing"}, {"name": "near", "version": 2}):
        with pytest.raises(ModelNotFound):
            await catalog.find(**missing)
    with pytest.raises(AliasNotFound):
        await catalog.find("near", alias="staging")
    assert (await catalog.find("near", alias="champion")).version == 1


async def test_a_file_changed_on_disk_is_not_handed_out(
    database: Database, make_catalog: MakeCatalog, mirror: Path
) -> None:
    near = row_of(spec_of(CONTENT, "model.bin"), name="near")
    catalog = make_catalog(database, near, model_sources=[str(mirror)])
    path = (await catalog.find("near")).files["model"]
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(ModelDamaged):
        await catalog.find("near")


async def test_the_best_model_of_a_task_that_is_here_is_the_default(
    database: Database, make_catalog: MakeCatalog, mirror: Path, tmp_path: Path
) -> None:
    best, second = far_row("best", rank=1), row_of(spec_of(CONTENT, "model.bin"), name="second", rank=2)
    by_name = row_of(spec_of(CONTENT, "model.bin"), name="by-name", rank=400)
    catalog = make_catalog(database, best, second, by_name, model_sources=[str(mirror)])
    assert (await catalog.default_for("classify")).model == "second"
    only = make_catalog(database, best, by_name, model_sources=[str(mirror)])
    with pytest.raises(ModelNotPulled):
        await only.default_for("classify")
    with pytest.raises(ModelNotFound):
        await only.default_for("dance")


async def test_a_licence_that_is_refused_stays_refused(
    database: Database, make_catalog: MakeCatalog, mirror: Path
) -> None:
    row = row_of(spec_of(CONTENT, "model.bin"), name="nc", commercial_ok=False, licence="CC-BY-NC-4.0", starter=True)
    strict = make_catalog(database, row, model_sources=[str(mirror)])
    assert strict.starter_models() == []
    with pytest.raises(LicenceRefused):
        await strict.pull("nc")
    with pytest.raises(ModelNotPulled):
        await strict.find("nc")
    assert (await make_catalog(database, row, model_sources=[str(mirror)], allow_noncommercial=True).find("nc")).version


async def test_own_versions_are_numbered_and_seen_by_their_project_only(
    any_database: Database, make_catalog: MakeCatalog, tmp_path: Path
) -> None:
    catalog = make_catalog(any_database)
    first, second = await trained(catalog, tmp_path), await trained(catalog, tmp_path)
    assert (first.version, second.version) == (1, 2)
    assert second.key == "prj_a/churn@2"
    assert second.files["model"].suffix == ".txt"
    assert (await catalog.find("churn", principal=A)).version == 2
    old = await catalog.find("churn", principal=A, version=1)
    assert old.meta == {"target": "churned"}
    assert old.digest == first.digest != second.digest
    for who in (B, None):
        with pytest.raises(ModelNotFound):
            await catalog.find("churn", principal=who)
    assert (await trained(catalog, tmp_path, who=B)).version == 1
    assert await catalog.versions(A, "churn") == {2: State.READY, 1: State.READY}
    assert [info.model for info in await catalog.list(B)] == ["churn"]


async def test_many_versions_at_once_get_different_numbers(
    any_database: Database, make_catalog: MakeCatalog, tmp_path: Path
) -> None:
    catalog = make_catalog(any_database)
    added = await asyncio.gather(*(trained(catalog, tmp_path, alias=None) for _ in range(8)))
    assert sorted(version.version for version in added) == list(range(1, 9))


@pytest.mark.parametrize("what", ["file", "document", "signature", "other version"])
async def test_nothing_changed_after_signing_is_loaded(
    database: Database, make_catalog: MakeCatalog, tmp_path: Path, what: str
) -> None:
    catalog = make_catalog(database)
    version, other = await trained(catalog, tmp_path), await trained(catalog, tmp_path)
    if what == "file":
        path = version.files["model"]
        raw = bytearray(path.read_bytes())
        raw[7] ^= 1
        path.write_bytes(raw)

    def tamper(session) -> None:
        rows = {row.number: row for row in session.query(VersionRow)}
        if what == "document":
            rows[1].document = rows[1].document.replace("churned", "evil")
        elif what == "signature":
            rows[1].signature = "0" * 64
        elif what == "other version":
            rows[1].document, rows[1].signature = rows[2].document, rows[2].signature

    await database.write(tamper)
    with pytest.raises(ModelDamaged):
        await catalog.find("churn", principal=A, version=1)
    assert (await catalog.find("churn", principal=A, version=2)).digest == other.digest


async def test_names_are_taken_once(database: Database, make_catalog: MakeCatalog, tmp_path: Path) -> None:
    catalog = make_catalog(database, far_row("yolox"))
    await trained(catalog, tmp_path)
    with pytest.raises(ModelExists):
        await trained(catalog, tmp_path, name="yolox")
    with pytest.raises(ModelExists):
        await trained(catalog, tmp_path, task="forecast")
    own = [path for path in (catalog.settings.models_dir / ".own").rglob("*") if path.is_file()]
    assert len(own) == 1, "what is refused leaves no files"


@pytest.mark.parametrize("name", ["../x", "", "A", "a/b", ".x", "x.", "x" * 64, "con\0", "a b", "%2e%2e"])
async def test_names_that_are_no_names(
    database: Database, make_catalog: MakeCatalog, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ModelRefused):
        await trained(make_catalog(database), tmp_path, name=name)


async def test_aliases_move_with_their_history(
    any_database: Database, make_catalog: MakeCatalog, tmp_path: Path
) -> None:
    catalog = make_catalog(any_database)
    for _ in range(3):
        await trained(catalog, tmp_path)
    among = await catalog.versions(A, "churn")
    back = await catalog.aliases.set(A, "churn", "champion", 1, among=among)
    assert back.revision == 4
    assert (await catalog.find("churn", principal=A)).version == 1
    await catalog.aliases.set(A, "churn", "shadow", 2, among=among, expected=0)
    assert (await catalog.find("churn", alias="shadow", principal=A)).version == 2
    with pytest.raises(AliasMoved):
        await catalog.aliases.set(A, "churn", "shadow", 3, among=among, expected=0)
    with pytest.raises(ModelNotFound):
        await catalog.aliases.set(A, "churn", "shadow", 9, among=among)
    moves = await catalog.aliases.history(A, "churn", "champion")
    assert [(move.old_version, move.new_version) for move in moves] == [(3, 1), (2, 3), (1, 2), (None, 1)]
    await catalog.aliases.delete(A, "churn", "shadow")
    with pytest.raises(AliasNotFound):
        await catalog.find("churn", alias="shadow", principal=A)
    again = await catalog.aliases.set(A, "churn", "shadow", 3, among=among, expected=0)
    assert again.revision > 1, "an ETag of before the deletion must not fit"
    assert await catalog.aliases.history(B, "churn", "champion") == []


async def test_fifty_promotions_at_once_have_one_winner_each_round(
    any_database: Database, make_catalog: MakeCatalog, tmp_path: Path
) -> None:
    catalog = make_catalog(any_database)
    await trained(catalog, tmp_path)
    await trained(catalog, tmp_path)
    for round_ in range(2):
        seen = (await catalog.aliases.of_project(A, "churn"))[0].revision
        results = await asyncio.gather(
            *(catalog.aliases.set(A, "churn", "champion", 1 + n % 2, among=(1, 2), expected=seen) for n in range(50)),
            return_exceptions=True,
        )
        winners = [result for result in results if not isinstance(result, BaseException)]
        assert len(winners) == 1
        assert all(isinstance(result, AliasMoved) for result in results if isinstance(result, BaseException))
        assert len(await catalog.aliases.history(A, "churn", "champion")) == 3 + round_


async def test_what_is_in_use_is_not_deleted(database: Database, make_catalog: MakeCatalog, tmp_path: Path) -> None:
    catalog = make_catalog(database)
    first, second = await trained(catalog, tmp_path), await trained(catalog, tmp_path)
    with pytest.raises(ModelInUse):
        await catalog.delete(A, "churn", second.version)
    async with catalog.pool.use(first.key, object, size=1):
        with pytest.raises(ModelInUse):
            await catalog.delete(A, "churn", first.version)
    with pytest.raises(ModelNotFound):
        await catalog.delete(B, "churn", first.version)
    await catalog.delete(A, "churn", first.version)
    assert not first.files["model"].exists()
    assert list(await catalog.versions(A, "churn")) == [2]
    assert (await trained(catalog, tmp_path)).version == 3, "a number is never used again"


async def test_catalogue_files_are_removed_by_administrators_only(
    database: Database, make_catalog: MakeCatalog, mirror: Path
) -> None:
    catalog = make_catalog(database, row_of(spec_of(CONTENT, "model.bin"), name="near"), model_sources=[str(mirror)])
    found = await catalog.find("near")
    with pytest.raises(CatalogueModel):
        await catalog.delete(A, "near")
    await catalog.delete(person("prj_a", Scope.ADMIN), "near")
    assert not found.files["model"].exists()
    assert (await catalog.list(A))[0].state is State.AVAILABLE


async def test_the_list_shows_every_kind_with_its_state(
    database: Database, make_catalog: MakeCatalog, mirror: Path, tmp_path: Path
) -> None:
    near = row_of(spec_of(CONTENT, "model.bin"), name="near")
    catalog = make_catalog(database, near, far_row(kind="llm", task="chat"), model_sources=[str(mirror)])
    await trained(catalog, tmp_path)
    version = await catalog.find("near")
    async with catalog.pool.use(version.key, object, size=77):
        lines = {info.model: info for info in await catalog.list(A)}
    assert {name: line.state for name, line in lines.items()} == {
        "churn": State.READY,
        "near": State.LOADED,
        "far": State.AVAILABLE,
    }
    assert lines["near"].loaded_bytes == 77
    assert [alias.alias for alias in lines["churn"].aliases] == ["champion"]
    assert [info.model for info in await catalog.list(A, kind="llm")] == ["far"]
    assert [info.model for info in await catalog.list(A, task="predict")] == ["churn"]
    assert (await catalog.show(A, "near")).own is False


async def test_loading_ahead_goes_through_the_runner_of_the_kind(
    database: Database, make_catalog: MakeCatalog, mirror: Path
) -> None:
    catalog = make_catalog(database, row_of(spec_of(CONTENT, "model.bin"), name="near"), model_sources=[str(mirror)])
    with pytest.raises(ModelRefused):
        await catalog.load(A, "near")

    class Runner:
        async def load(self, version: ModelVersion) -> None:
            async with catalog.pool.use(version.key, object, size=10):
                pass

        async def unload(self, version: ModelVersion) -> None:
            pass

    catalog.runners["vision"] = Runner()
    await catalog.load(A, "near", pin=True)
    (entry,) = catalog.pool.states()
    assert (entry.key, entry.pinned) == ("near@1", True)
    await catalog.unload(A, "near")
    assert catalog.pool.states() == []


async def test_a_pull_as_a_step_reports_bytes(
    database: Database, make_catalog: MakeCatalog, server: FileServer
) -> None:
    server.files["/m"] = CONTENT
    row = row_of(spec_of(CONTENT, "model.bin", {"kind": "url", "url": server.url + "/m"}), name="near")
    catalog, reports = make_catalog(database, row), []

    class Context:
        services = Services()
        cancelled = False

        def progress(self, done: float, total: float | None = None, unit: str = "steps") -> None:
            reports.append((done, total, unit))

    Context.services.put(catalog)
    output = await HANDLERS["catalog.pull"](Context(), {"model": "near"})
    assert output == {"model": "near", "version": 1, "bytes": len(CONTENT), "digest": row.fetch[0].sha256}
    assert reports[-1] == (len(CONTENT), len(CONTENT), "bytes")
    for wrong in ({}, {"model": 3}, {"model": "near", "version": "1"}):
        with pytest.raises(ModelRefused):
            await HANDLERS["catalog.pull"](Context(), wrong)


async def test_storage_of_an_empty_project(any_database: Database) -> None:
    assert await any_database.read(storage.own_models, "prj_x") == []
    assert await any_database.read(storage.aliases_of, "prj_x") == []


async def test_one_starter_of_a_task_is_enough(database: Database, make_catalog: MakeCatalog, mirror: Path) -> None:
    first, second = (
        far_row("first", rank=1, starter=True),
        row_of(spec_of(CONTENT), name="second", rank=2, starter=True),
    )
    other = far_row("other", task="chat", kind="llm", starter=True)
    catalog = make_catalog(database, second, first, other, model_sources=[str(mirror)])
    assert [row.name for row in catalog.starter_models()] == ["other", "first", "second"]
    await catalog.find("second")
    assert [row.name for row in catalog.starter_models()] == ["other", "second"]
