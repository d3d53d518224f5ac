"""What each process of Trainer does in `test_transformers_trainer.py`; in its own file, so that it imports no test."""

import os

import torch
import transformers_cases as cases

from image2video import VideoWrap


def main(folder):
    transformers = cases.library()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    draw = torch.Generator().manual_seed(0)
    data = [{"pixel_values": torch.randn(3, 32, 32, generator=draw), "labels": index % 5} for index in range(8)]
    model = VideoWrap(cases.classifier(), "tsm", T=3, genotype="rotate(5)")  # no norms over half batches
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4 // processes,
        num_train_epochs=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        optim="sgd",
        learning_rate=0.1,
        max_grad_norm=0.0,
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=data, eval_dataset=data)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    loss = trainer.evaluate()["eval_loss"]
    if trainer.is_world_process_zero():
        torch.save({"loss": loss, **model.state_dict()}, folder / f"trained{processes}.pt")
    if processes > 1:
        torch.distributed.destroy_process_group()
