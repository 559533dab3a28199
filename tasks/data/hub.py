"""Data sets of Hugging Face → rows; a fault of `datasets` becomes a sentence with its cause."""

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.data.sources import SourceConfig
from tasks.paths import find

_CHECK = "check its id, dataset_config, dataset_split and revision, and that it can be reached"


class DataSet:
    """The data set of a source, in one part, or in one for each file where these differ."""

    def __init__(self, source: SourceConfig) -> None:
        self._source = source

    @property
    def columns(self) -> list[str]:
        """The columns of all parts."""
        return list(dict.fromkeys(name for part in self._parts for name in part.column_names))

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """Yields the rows with the columns that are needed.

        Raises ValueError if the data set or one of its values cannot be read.
        """
        for part in self._parts:
            columns = self._source.needed(part.column_names) or part.column_names
            rows = iter(part.select_columns(columns))
            while True:
                try:
                    row = next(rows)
                except StopIteration:
                    break
                except Exception as error:  # decoders of images, audio and others raise their own
                    raise self._refused(error, "leave the column out") from error
                yield row

    @cached_property
    def _parts(self) -> list[Any]:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
        from datasets import load_dataset
        from datasets.exceptions import DatasetGenerationError

        source = self._source
        try:
            return [
                load_dataset(
                    self._path,
                    source.dataset_config,
                    split=source.dataset_split,
                    revision=source.revision,
                )
            ]
        except DatasetGenerationError as error:
            # Files that differ in columns or types make no common table, but each makes its own.
            return self._load_files(error)
        except Exception as error:  # any library of a file system or a format may be behind it
            if "scripts are no longer supported" in str(error):
                raise self._refused(
                    error,
                    "its loading script is not run: set revision to refs/convert/parquet, or give "
                    "its files by path",
                ) from error
            raise self._refused(error, _CHECK) from error

    @property
    def _path(self) -> str:
        assert self._source.dataset
        return str(find(self._source.dataset, accept=Path.is_dir) or self._source.dataset)

    def _load_files(self, whole: Exception) -> list[Any]:
        """Loads each file of the split by itself; raises ValueError with its name if one fails."""
        from datasets import load_dataset, load_dataset_builder

        source = self._source
        builder = load_dataset_builder(self._path, source.dataset_config, revision=source.revision)
        parts = []
        for file in (builder.config.data_files or {}).get(source.dataset_split, []):
            try:
                parts.append(load_dataset(builder.name, data_files=[str(file)], split="train"))
            except Exception as error:  # as above
                raise self._refused(error, "mend or remove the file", where=str(file)) from error
        if not parts:
            raise self._refused(whole, "give its files by path") from whole
        return parts

    def _refused(self, error: Exception, remedy: str, *, where: str = "") -> ValueError:
        """Returns the error that names the data set and the cause."""
        from datasets.exceptions import DatasetGenerationError

        cause: BaseException = error
        while isinstance(cause, DatasetGenerationError) and cause.__cause__:
            cause = cause.__cause__
        text = " ".join((str(cause) or type(cause).__name__).split())
        return ValueError(
            f"source {self._source.name!r}: data set {self._source.dataset!r} cannot be read "
            f"({f'{where}: ' if where else ''}{text}); {remedy}"
        )
