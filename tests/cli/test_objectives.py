"""`vlprep objectives`."""

from __future__ import annotations


def test_each_objective_with_inputs_formula_and_source(vlprep, document):
    found = {entry["name"]: entry for entry in document("objectives")}
    assert found["mrc-kl"]["inputs"] == ["class_probs", "regions", "text"]
    assert found["lxmert"]["kind"] == "lxmert"
    assert found["itm"]["settings"] == {"weight": 1.0, "wra": 0.0}
    text = vlprep("objectives").stdout
    for entry in found.values():
        for fact in (entry["name"], entry["systems"], entry["formula"], entry["source"]):
            assert fact in text
    assert "settings  weight=1.0, wra=0.0\n" in text
    assert "clips.random_flip=true" in text
