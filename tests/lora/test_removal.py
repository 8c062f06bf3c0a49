"""What predicts a task's means, against ridge regression in its primal form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sglora_cli.lora.removal import predicted, ridge_weights


def test_a_prediction_is_ridge_regression_of_the_means_on_the_sentences():
    rng = torch.Generator().manual_seed(1)
    sentences_TD, means_TD, asked_SD = (torch.randn(rows, 6, generator=rng) for rows in (9, 9, 4))
    x, y = sentences_TD.double().numpy(), means_TD.double().numpy()
    centred = x - x.mean(0)
    for ridge in (0.01, 0.3, 10.0):
        coefficients = np.linalg.inv(centred.T @ centred + ridge * np.eye(6)) @ centred.T @ (y - y.mean(0))
        expected_SD = y.mean(0) + (asked_SD.double().numpy() - x.mean(0)) @ coefficients
        found_SD = predicted(ridge_weights(sentences_TD, asked_SD, ridge), means_TD)
        assert found_SD.numpy() == pytest.approx(expected_SD)
