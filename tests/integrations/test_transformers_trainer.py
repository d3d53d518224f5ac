"""Hugging Face's Trainer and pipeline on a wrapped model; tiny networks with random weights."""

import pytest
import torch
import transformers_cases as cases
import transformers_ddp_worker
from forked import together
from PIL import Image
from torch.nn.functional import cross_entropy

from image2video import VideoWrap
from image2video.errors import InputTypeError

transformers = pytest.importorskip("transformers")
SIZE = (3, 32, 32)


def data(count=8):
    draw = torch.Generator().manual_seed(0)
    return [{"pixel_values": torch.randn(SIZE, generator=draw), "labels": index % 5} for index in range(count)]


def model(fusion="gsf"):
    return VideoWrap(cases.classifier(), fusion, T=3, genotype="rotate(5)")


def trainer(wrapped, folder, callbacks=(), **options):
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        num_train_epochs=1,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        learning_rate=1e-2,
        **{"save_strategy": "no"} | options,
    )
    made = transformers.Trainer(
        model=wrapped, args=arguments, train_dataset=data(), eval_dataset=data(), callbacks=[*callbacks]
    )
    made.remove_callback(transformers.PrinterCallback)
    return made


def test_it_trains_evaluates_and_predicts(tmp_path):
    wrapped = model()
    made = trainer(wrapped, tmp_path)
    images, labels = torch.stack([row["pixel_values"] for row in data()]), torch.arange(8) % 5
    with torch.no_grad():
        logits = wrapped.eval()(images).logits
    found = made.predict(data())
    torch.testing.assert_close(torch.from_numpy(found.predictions), logits)
    assert made.evaluate()["eval_loss"] == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-5)
    first = made.state.log_history[-1]["eval_loss"]
    made.train()
    assert made.state.global_step == 4
    assert made.evaluate()["eval_loss"] < first


def test_a_resumed_training_is_the_uninterrupted_one_and_its_checkpoints_load(tmp_path):
    from image2video.integrations.transformers_trainer import SaveConfig

    whole = trainer(model(), tmp_path / "whole", [SaveConfig()], save_strategy="steps", save_steps=2)
    whole.train()
    resumed = trainer(model(), tmp_path / "again", save_strategy="no")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert resumed.state.global_step == 4
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    loaded = VideoWrap.from_pretrained(tmp_path / "whole" / "checkpoint-4")
    torch.testing.assert_close(loaded.state_dict(), whole.model.state_dict(), rtol=0, atol=0)
    with pytest.raises(InputTypeError, match=r"SaveConfig needs a VideoWrap .* got a ViTForImageClassification"):
        trainer(cases.classifier(), tmp_path / "bare", [SaveConfig()]).train()


def test_gradients_that_are_accumulated_are_those_of_the_whole_batch(tmp_path):
    states = []
    for options in ({"gradient_accumulation_steps": 2}, {"per_device_train_batch_size": 4}):
        wrapped = model("none")
        made = trainer(wrapped, tmp_path, max_steps=1, optim="sgd", max_grad_norm=0.0)
        for key, value in options.items():
            setattr(made.args, key, value)
        made = transformers.Trainer(model=wrapped, args=made.args, train_dataset=data())
        made.remove_callback(transformers.PrinterCallback)
        made.train()
        states.append(dict(wrapped.named_parameters()))
    torch.testing.assert_close(*states, rtol=1e-4, atol=1e-6)


def test_it_trains_in_bfloat16_with_checkpointed_activations(tmp_path):
    made = trainer(model(), tmp_path, bf16=True, activation_checkpointing=True, max_steps=2)
    made.train()
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert all(0 < loss < 5 for loss in losses)


def test_two_processes_train_as_one(tmp_path):
    ended = together(tmp_path, transformers_ddp_worker.main, tmp_path, processes=2)
    assert [process.code for process in ended] == [0, 0], "\n".join(process.error for process in ended)
    transformers_ddp_worker.main(tmp_path)
    one, two = (torch.load(tmp_path / f"trained{count}.pt") for count in (1, 2))
    assert one.keys() == two.keys()
    torch.testing.assert_close(two, one, atol=1e-6, rtol=1e-5)


def test_a_pipeline_says_what_the_model_does():
    wrapped = model().eval()
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    photo = Image.linear_gradient("L").convert("RGB")
    classify = transformers.pipeline("image-classification", model=wrapped, image_processor=processor, top_k=5)
    found = {entry["label"]: entry["score"] for entry in classify(photo)}
    with torch.no_grad():
        scores = wrapped(**processor(photo, return_tensors="pt")).logits.softmax(-1)[0]
    assert found == {f"LABEL_{k}": pytest.approx(score, abs=1e-6) for k, score in enumerate(scores.tolist())}
