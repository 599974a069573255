"""A model before its first step."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from vlprep.cluster.vocabulary import Vocabulary
from vlprep.errors import SettingsError
from vlprep.pretrain.base import LooksAtRegions, StoreFacts
from vlprep.pretrain.embeddings import VisualTokenEmbeddings
from vlprep.pretrain.masking import TextVocabulary
from vlprep.pretrain.models.cbt import Cbt
from vlprep.pretrain.models.kinds import ModelConfig, build_model
from vlprep.pretrain.models.milnce import MilNce, MilNceSettings
from vlprep.pretrain.models.single_stream import SingleStream
from vlprep.pretrain.models.univl import Univl
from vlprep.pretrain.recipe import Recipe
from vlprep.pretrain.settings import ClipModelSettings, ModelSettings, RegionModelSettings
from vlprep.pretrain.setup import Prepared, mean_region, some_clips


def build_initial(
    config: ModelConfig, recipe: Recipe, vocabulary: Vocabulary | None, words: TextVocabulary
) -> nn.Module:
    """Seeded initial weights; visual tokens start from their vocabulary's centroids, MIL-NCE's words from their
    vectors.
    """
    torch.manual_seed(recipe.train.seed)
    model = build_model(config)
    if vocabulary is not None and isinstance(model, SingleStream):
        embeddings = model.bert["visual_embeddings"]
        assert isinstance(embeddings, VisualTokenEmbeddings)
        embeddings.load_centroids(torch.from_numpy(vocabulary.centroids[-1]))
    if isinstance(model, MilNce) and words.vectors is not None and words.vectors.dim:
        model.load_words(torch.from_numpy(words.vectors[np.arange(words.size)]))
    elif isinstance(recipe.model, MilNceSettings) and recipe.model.freeze_words and not recipe.model.init:
        raise SettingsError(
            "the words have no vectors and would keep random ones: vlprep tokenize DATASET --tokenizer words:FILE (of"
            " MIL-NCE's dict.npy with word2vec.pth beside it), --init s3d_howto100m.pth, or model.freeze_words = false"
        )
    return model


def fit_to_features(model: nn.Module, settings: ModelSettings, prepared: Prepared, facts: StoreFacts) -> None:
    """Where it is asked for, inputs begin centred on what the training features have in common."""
    if isinstance(settings, RegionModelSettings) and settings.centre_regions and facts.region_dim:
        assert isinstance(model, LooksAtRegions)
        model.centre_regions(torch.from_numpy(mean_region(prepared)))
    if isinstance(settings, ClipModelSettings) and settings.standardise_clips:
        assert isinstance(model, Univl | Cbt)
        model.standardise_clips(torch.from_numpy(some_clips(prepared)), settings.standardise_clips)
