"""`mmlit evaluate` as a user calls it: other data, other protocols, published pairs."""

import json
from pathlib import Path

import pytest
from layers.published import publish

from mmlit.cli import main
from mmlit.data.scenes.write import write_scenes


@pytest.fixture
def run(train, tmp_path) -> Path:
    """The folder of a finished run."""
    assert train("alignment=contrastive", "trainer.max_epochs=1").code == 0
    (path,) = tmp_path.rglob("result.json")
    return path.parent


def record(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def test_the_same_data_gives_the_same_numbers_and_the_record_keeps_its_own(run, capsys):
    before = record(run)
    assert main(["evaluate", str(run)]) == 0
    after = record(run)
    (entry,) = after.pop("evaluations")
    assert after == {**before, "evaluations": []} or after == {k: v for k, v in before.items() if k != "evaluations"}
    assert entry["metrics"] == before["metrics"]
    assert entry["counts"] == {"images": 24, "texts": 120}
    assert (run / entry["folder"] / "ranks.npz").is_file()
    assert f"{before['metrics']['rsum']:.2f}" in capsys.readouterr().out


def test_another_protocol_has_another_fingerprint_and_twice_the_same_counts_once(run):
    for _ in range(2):
        assert main(["evaluate", str(run), "evaluator.folds=2", "evaluator.captions_per_image=4"]) == 0
    assert main(["evaluate", str(run / "checkpoints" / "best.ckpt"), "--split", "val"]) == 0
    folds, val = record(run)["evaluations"]
    assert folds["protocol"]["folds"] == 2
    assert folds["counts"] == {"images": 24, "texts": 96}
    assert folds["metrics"]["rsum"] > record(run)["metrics"]["rsum"], "smaller galleries are easier"
    assert (val["split"], val["counts"]["images"]) == ("val", 16)
    assert folds["fingerprint"] != val["fingerprint"]


def test_several_runs_on_other_data(run, train, tmp_path, caplog):
    assert train("alignment=joint", "trainer.max_epochs=1").code == 0
    runs = sorted(path.parent for path in tmp_path.rglob("result.json"))
    write_scenes(root=tmp_path / "other", train=1, val=1, test=10, size=32, seed=5, workers=1)
    assert main(["evaluate", *map(str, runs), "--data", "scenes", f"data.root={tmp_path / 'other'}"]) == 0
    outputs = runs[0].parent  # all that a sweep and its table leave beside the runs, as `outputs/SWEEP/*` names it
    (outputs / "galleries").mkdir(exist_ok=True)
    for name in ("multirun.yaml", "comparison.png", "table.md", "table.csv", "table.tex", "report.html"):
        (outputs / name).touch()
    with caplog.at_level("INFO"):
        assert main(["evaluate", *map(str, sorted(outputs.iterdir())), "evaluator.folds=2"]) == 0
    assert "comparison.png, galleries, multirun.yaml, report.html" in caplog.text
    entries = [record(folder)["evaluations"] for folder in runs]
    assert [len(each) for each in entries] == [2, 2]
    entries = [each[:1] for each in entries]
    (one,), (other,) = entries
    assert one["counts"] == other["counts"] == {"images": 10, "texts": 50}
    assert {one["scored"], other["scored"]} == {"full", "rerank@8"}
    assert one["fingerprint"] == other["fingerprint"], "reranking ranks the same gallery"


def test_a_published_pair_stands_in_the_table_with_trained_runs(run, scenes, tmp_path, capsys):
    pair = publish(tmp_path / "pair", "clip")
    outputs = [f"paths.outputs={tmp_path / 'outputs'}", f"data.root={scenes}", "text_encoder.max_length=40"]
    assert main(["evaluate", str(pair), "--data", "scenes", *outputs]) == 0
    (published,) = (path.parent for path in tmp_path.rglob("result.json") if path.parent != run)
    told = record(published)
    assert told["choices"]["alignment"] == "zero_shot"
    assert told["budget"] == {"epochs": 0, "steps": 0, "pairs_seen": 0}
    assert told["selection"] == "published weights"
    assert "temperature" not in told["diagnostics"], "no temperature was learned here"
    assert "temperature" in record(run)["diagnostics"]
    capsys.readouterr()
    assert main(["compare", str(tmp_path / "outputs")]) == 0
    out = capsys.readouterr().out
    assert "zero_shot" in out
    assert "contrastive" in out
    entry_like_it = ["evaluate", str(run), f"data.root={scenes}", "--evaluator", "retrieval"]
    assert main(entry_like_it) == 0
    assert main(["compare", str(tmp_path / "outputs"), "--evaluation", "retrieval"]) == 0
    (table,) = (tmp_path / "outputs").glob("retrieval.md")
    assert f"| rsum | {record(run)['metrics']['rsum']:.1f} | {told['metrics']['rsum']:.1f} |" in table.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone"], "gone: no such run, checkpoint or directory"),
        (["."], "no folder of a finished run"),
        (["RUN", "--evaluator", "coco_5k"], "evaluator.images=5,000: this protocol ranks that many, split test"),
        (["RUN", "--evaluator", "coco5k"], "evaluator=coco5k: no such choice; did you mean coco_5k?; there are: aro_"),
        (["RUN", "--data", "nosuch"], "data=nosuch: no such choice; there are: coco2014, "),
        (["RUN", "trainer=ddp"], "mmlit evaluate works on one device"),
        (["RUN", "seed=3"], "seed belongs to the training of a checkpoint"),
        (["RUN", "evaluator.foldz=2"], "evaluator.foldz: no such option; did you mean evaluator.folds?"),
        (["split=val"], "evaluate needs a run's folder"),
    ],
)
def test_wrong_input_is_one_line_and_costs_no_record(run, capsys, arguments, message):
    before = record(run)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *(str(run) if word == "RUN" else word for word in arguments)])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert record(run) == before
    assert not (run / "evaluations").exists(), "nothing was found that a folder could hold"


def test_one_that_is_refused_does_not_stop_the_others(run, train, tmp_path, capsys):
    assert train("alignment=joint", "trainer.max_epochs=1").code == 0
    runs = sorted((path.parent for path in tmp_path.rglob("result.json")), key=lambda folder: folder != run)
    curve = ["--evaluator", "rerank_curve", "evaluator.rerank_ks=[0,8]"]
    assert main(["evaluate", *map(str, runs), *curve]) == 2
    told = capsys.readouterr()
    assert "rerank8_rsum" in told.out
    first, second = told.err.splitlines()[-2:]
    assert first == "mmlit: 1 of 2 were refused"
    assert second.startswith(f"  {run}: ")
    assert "Contrastive has no cheap score to find candidates with" in second
    assert [len(record(folder).get("evaluations", [])) for folder in runs] == [0, 1]
    assert not (run / "evaluations").exists()
    with pytest.raises(SystemExit):
        main(["evaluate", str(runs[1]), "gone", *curve])
    assert "rerank8_rsum" not in capsys.readouterr().out, "a wrong path stops everything at once"


def test_the_help_lists_evaluators_and_data(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    out = capsys.readouterr().out
    assert "    winoground         Winoground: which of two captions" in out
    assert "coco_karpathy" in out


def test_a_probe_of_a_published_pair_lies_in_a_folder_of_its_own(scenes, tmp_path, capsys, caplog):
    caplog.set_level("INFO")
    pair = publish(tmp_path / "pair", "clip")
    folders = [f"evaluator.annotations={scenes}/sugarcrepe/test", f"evaluator.images={scenes}/test2017"]
    outputs = [f"paths.outputs={tmp_path / 'outputs'}", "text_encoder.max_length=40"]
    assert main(["evaluate", str(pair), "--evaluator", "scenes_probe", *folders, *outputs]) == 0
    (folder,) = (tmp_path / "outputs").iterdir()
    assert folder.name.startswith("scenes_probe-zero_shot-")
    assert any(line.startswith("asking ") and line.endswith(" pictures") for line in caplog.messages)
    assert main(["compare", str(folder), "--evaluation", "scenes_probe"]) == 0
    assert "zero_shot pair" in capsys.readouterr().out


def test_other_models_than_pairs_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", str(publish(tmp_path / "vit", "vit"))])
    assert "is a vit model: only a CLIP or SigLIP pair is whole without training" in capsys.readouterr().err


@pytest.mark.parametrize("alignment", ["contrastive", "joint"])
def test_a_probe_asks_dual_encoders_and_fusion_alike(train, scenes, tmp_path, alignment):
    assert train(f"alignment={alignment}", "trainer.max_epochs=1").code == 0
    (run,) = (path.parent for path in tmp_path.rglob("result.json"))
    folders = [f"evaluator.annotations={scenes}/sugarcrepe/test", f"evaluator.images={scenes}/test2017"]
    assert main(["evaluate", str(run), "--evaluator", "scenes_probe", *folders]) == 0
    (entry,) = record(run)["evaluations"]
    assert {"replace_colour", "replace_size", "replace_rel"} <= entry["metrics"].keys()
    assert all(0 <= value <= 100 for value in entry["metrics"].values())
    assert (run / entry["folder"] / "items.npz").is_file()
    assert entry["data"] is None


def test_a_probe_is_no_evaluator_to_train_with(train):
    ended = train("evaluator=scenes_probe", small=False)
    assert ended.code == 2
    assert "evaluator=scenes_probe asks a trained model questions of its own" in ended.err
    assert ended.err.count("\n") == 1


def test_the_true_pairs_of_scenes(run, scenes):
    assert main(["evaluate", str(run), "--evaluator", "scenes_true_pairs"]) == 0
    (entry,) = record(run)["evaluations"]
    metrics = entry["metrics"]
    assert metrics["true_pairs_t2i_r10"] >= metrics["t2i_r10"], "its own picture is one of those that count"
    assert 0 <= metrics["true_pairs_i2t_map_at_r"] <= metrics["true_pairs_i2t_r_precision"] <= 100
    assert entry["protocol"]["truths"][0].startswith("true_pairs ")


def test_a_truth_that_is_not_there_is_refused_before_anything_is_encoded(run, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", str(run), "--evaluator", "scenes_true_pairs", "evaluator.truths.0.annotations=gone.json"])
    assert "there is no" in capsys.readouterr().err


def test_the_curve_of_reranking(train, tmp_path, capsys):
    assert train("alignment=joint", "trainer.max_epochs=1").code == 0
    (run,) = (path.parent for path in tmp_path.rglob("result.json"))
    assert main(["evaluate", str(run), "--evaluator", "rerank_curve", "evaluator.rerank_ks=[0,8,16]"]) == 0
    metrics = record(run)["evaluations"][0]["metrics"]
    assert metrics["rerank8_rsum"] == record(run)["metrics"]["rsum"], "the run was reranked with 8 candidates"
    assert metrics["rerank16_t2i_queries_per_second"] > 0
    with pytest.raises(SystemExit):
        main(["evaluate", str(run), "--evaluator", "rerank_curve", "evaluator.rerank_ks=[-1]"])
    assert "ks must be numbers >= 0" in capsys.readouterr().err


def test_a_dual_encoder_has_no_curve(run, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", str(run), "--evaluator", "rerank_curve"])
    assert "Contrastive has no cheap score to find candidates with" in capsys.readouterr().err


@pytest.mark.slow
def test_a_table_of_evaluations_has_seeds_and_tests(train, tmp_path):
    """What docs/evaluation.md says of differences on other data."""
    for seed in (0, 1):
        assert train("alignment=contrastive,projection", f"seed={seed}", "trainer.max_epochs=1", "-m").code == 0
    runs = sorted(str(path.parent) for path in tmp_path.rglob("result.json"))
    assert len(runs) == 4
    assert main(["evaluate", *runs, "--split", "val"]) == 0
    folders = map(str, (tmp_path / "outputs").glob("*/evaluations/scenes-retrieval-*"))
    assert main(["compare", *folders, "--output", str(tmp_path)]) == 0
    table = (tmp_path / "table.md").read_text()
    assert "checkpoint=" not in table, "where a seed's weights lie makes no row"
    assert "| contrastive |" in table
