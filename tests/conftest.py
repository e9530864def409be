"""What every test relies on: no network, no account, one thread; and a tiny published checkpoint."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import pytest
import torch

torch.set_num_threads(1)

_WORDS = ("a", "the", "on", "of", "and", "is", "runs", "sits", "dog", "cat", "horse", "red", "blue", "small", "large")
_MORE = ("square", "circle", "left", "right", "##s", "##ing")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory as published for BERT: vocabulary, tokenizer, and a tower with its heads of pre-training."""
    from transformers import AutoTokenizer, BertConfig, BertForPreTraining

    folder: Path = tmp_path_factory.mktemp("tiny_bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, *_MORE]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertForPreTraining(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return str(folder)
