"""What a data set found, to compare with."""

from __future__ import annotations


def photos_of(tasks):
    """{task: {split: [(file name, captions)]}}"""
    return {
        task.name: {split: [(p.path.name, p.captions) for p in photos] for split, photos in task.photos.items()}
        for task in tasks
    }


def counts(tasks):
    return {task.name: (len(task.photos["train"]), len(task.photos["test"])) for task in tasks}
