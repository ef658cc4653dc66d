"""The end of `primal-dual demo`: a trained transformer, a prediction, its heads certified; what scaled heads cost."""

from collections.abc import Iterator

from primal_dual.cli.console import torch_part

DATA, ATTENTION = "JapaneseVowels", "bn+sh"
EXAMPLES = 4  # whose heads are certified
LENGTH, PAIRS = 4096, 2


def told() -> Iterator[str]:
    """What is found, a sentence at a time."""
    import torch

    finished_run, certificate = torch_part("training.trained.finished_run"), torch_part("certificate")
    name = f"pretrained:{DATA}/{ATTENTION}"
    run = finished_run.load_run(name)
    data = finished_run.load_data_of_run(run, None)
    accuracy, count = finished_run.test_accuracy(run, data), len(data.test)
    yield f"{name} is a trained transformer: of {count} utterances, it names the speaker of {accuracy:.1%}."
    first = data.test.take(torch.arange(EXAMPLES))
    probabilities = finished_run.classify(run, first.inputs, first.key_mask)
    best, label = int(probabilities[0].argmax()), int(first.labels[0])
    says = f"says speaker {run.classes[best]} with probability {probabilities[0, best]:.2f}"
    yield f"Of the first utterance it {says}; it is speaker {run.classes[label]}."
    found = certificate.certify_module(run.model, (run.prepare(first.inputs), first.key_mask))
    yield f"Its heads, on {EXAMPLES} utterances, are {found}"
    bench, measure = torch_part("bench.attention_speed"), torch_part("bench.measure")
    compared = measure.interleaved(bench.step("cpu", "sh", LENGTH), bench.sdpa_step("cpu", LENGTH), "cpu", PAIRS)
    yield f"Attention-SH takes {compared.ratio:.2f} of the time of softmax attention at {LENGTH:,} tokens here."
