"""Momentum towers: what they average, when they move, and who knows of them."""

import copy

import pytest
import torch
from torch import nn
from training.test_gradient_cache import B, batch_of

from mmlit.alignments.contrastive import Contrastive
from mmlit.image_encoders.tiny import TinyImageEncoder
from mmlit.text_encoders.tiny import TinyTextEncoder
from mmlit.training.gradient_cache import GradientCache
from mmlit.training.module import RetrievalModule
from mmlit.training.parameter_groups import parameter_groups
from mmlit.training.teacher import Teacher


class Taught(Contrastive):
    """Asks for a teacher, and has a buffer."""

    momentum = 0.75

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.register_buffer("queue", torch.zeros(3))


def module_of(*, frozen: bool = False, step: GradientCache | None = None, momentum: float | None = 0.75):
    """A module as it is when training begins; dropout is on, so that a teacher in training mode would show."""
    torch.manual_seed(0)
    image_encoder = TinyImageEncoder(size=16, dim=32, num_layers=1, freeze=frozen)
    text_encoder = TinyTextEncoder(vocabulary_size=40, max_length=9, dim=32, num_layers=1, freeze=False)
    alignment = Taught(
        image=image_encoder.spec, text=text_encoder.spec, dim=8, image_head="linear", text_head="linear", dropout=0.5,
        temperature=0.1, learn_temperature=True, label_smoothing=0.0, hardness=0.0, decoupled=False,
    )  # fmt: skip
    alignment.momentum = momentum
    module = RetrievalModule(
        image_encoder=image_encoder, text_encoder=text_encoder, alignment=alignment, auxiliaries={},
        evaluator=None, optimizer=torch.optim.SGD, groups=None, schedule=None, step=step, seed=0, origin={},
    )  # fmt: skip
    module.on_fit_start()
    return module.train()


def optimize(module: RetrievalModule, *, steps: int) -> list[dict[str, torch.Tensor]]:
    """So many steps as Lightning makes them; all trainable weights behind each."""
    optimizer = torch.optim.SGD(parameter_groups(module), lr=0.5)
    seen = []
    for _ in range(steps):
        optimizer.zero_grad()
        module.training_step(batch_of(), 0).backward()
        module.optimizer_step(0, 0, optimizer, lambda: None)
        seen.append({name: part.detach().clone() for name, part in module.named_parameters() if part.requires_grad})
    return seen


@pytest.fixture(autouse=True)
def without_warnings(recwarn):
    """Lightning warns that nothing is logged without a trainer."""


@pytest.mark.parametrize("frozen", [False, True])
def test_averages_are_those_of_the_formula(frozen):
    """θ ← m θ + (1 − m) θ_student behind every optimizer step, from the weights that training begins with."""
    module = module_of(frozen=frozen)
    expected = {name: part.detach().clone() for name, part in module.named_parameters() if part.requires_grad}
    for weights in optimize(module, steps=3):
        expected = {name: 0.75 * average + 0.25 * weights[name] for name, average in expected.items()}
    found = module.teacher.state_dict()
    assert found.keys() == expected.keys()
    assert any(name.startswith("image_encoder") for name in found) is not frozen
    for name, average in expected.items():
        torch.testing.assert_close(found[name], average, rtol=1e-5, atol=1e-7)
        assert not torch.equal(average, weights[name]), name


def test_what_nobody_trains_is_the_students_own():
    """Trap 22: a frozen tower is not there twice; buffers, such as queues and statistics, are not either."""
    module = module_of(frozen=True)
    for own, copied in zip(module.image_encoder.parameters(), module.teacher.image_encoder.parameters(), strict=True):
        assert own is copied
    assert module.teacher.alignment.queue is module.alignment.queue
    for own, copied in zip(module.text_encoder.parameters(), module.teacher.text_encoder.parameters(), strict=True):
        assert own.data_ptr() != copied.data_ptr()
        assert own.requires_grad
        assert not copied.requires_grad


@pytest.mark.parametrize("step", [None, GradientCache(chunk_size=3)])
@pytest.mark.parametrize("stored", [False, True])
def test_its_embeddings_are_those_of_evaluation(step, stored):
    """No dropout, no gradient, no random number; in chunks, and of a side from a store, as without."""
    module, batch = module_of(frozen=stored, step=step), batch_of()
    if stored:
        with torch.no_grad():
            batch = batch._replace(image=module.image_encoder(batch.image))
    optimize(module, steps=1)
    before = torch.get_rng_state()
    image, text = module._taught(batch)
    assert torch.equal(torch.get_rng_state(), before)
    assert not image.pooled.requires_grad
    averaged = copy.deepcopy(module)
    averaged.load_state_dict(averaged.state_dict() | module.teacher.state_dict())
    with torch.no_grad():
        expected = averaged.eval().encode(batch)
    for one, other in zip((image, text), expected, strict=True):
        assert one.pooled.shape == (B, 8)
        torch.testing.assert_close(one.pooled, other.pooled)
    with torch.no_grad():
        student = module.eval().encode(batch)
    assert not torch.allclose(text.pooled, student[1].pooled)


def test_the_alignment_gets_them_and_nobody_else_knows_of_it():
    """Neither the optimizer nor a checkpoint's weights; an alignment that asks for none has none."""
    module = module_of()
    module.training_step(batch_of(), 0)
    assert module.pairs.teacher is not None
    assert not any("teacher" in name for name in module.state_dict())
    own = {id(part) for part in module.parameters()}
    averages = module.teacher.state_dict().values()
    assert not own & {id(part) for part in averages}
    assert not any(isinstance(part, nn.Module) and "Teacher" in type(part).__name__ for part in module.modules())
    plain = module_of(momentum=None)
    plain.training_step(batch_of(), 0)
    assert plain.teacher is None
    assert plain.pairs.teacher is None


def test_a_resumed_teacher_is_where_it_was():
    module, other = module_of(), module_of()
    optimize(module, steps=2)
    stored = {name: part.clone() for name, part in module.teacher.state_dict().items()}
    other.stored_teacher = stored
    other.on_fit_start()
    for name, average in module.teacher.state_dict().items():
        assert torch.equal(other.teacher.state_dict()[name], average)
    name = next(iter(stored))
    with pytest.raises(ValueError, match=f"averages in the checkpoint are of other parameters: {name}"):
        other.teacher.load_state_dict({key: part for key, part in stored.items() if key != name})


def test_weights_that_two_towers_share_stay_shared():
    """A pair of towers may be one network."""
    module = module_of()
    module.text_encoder.norm_of_both = module.image_encoder.norm_of_both = nn.LayerNorm(4)
    taught = Teacher(image_encoder=module.image_encoder, text_encoder=module.text_encoder, alignment=module.alignment)
    assert taught.image_encoder.norm_of_both is taught.text_encoder.norm_of_both
