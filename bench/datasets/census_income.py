"""Census-Income (KDD): who earns more than 50,000 dollars and who never married, the classic multi-task control."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from bench.api import Dataset, Field, Tables, Task, Temporal
from bench.data.raw.source import Local
from bench.datasets.logs.read import Columns, not_empty, odd_line, read_columns, reject
from bench.errors import BenchError

COLUMNS = (
    "age", "class_of_worker", "industry_code", "occupation_code", "education", "wage_per_hour",
    "enrolled_in_edu_inst_last_wk", "marital_status", "major_industry_code", "major_occupation_code", "race",
    "hispanic_origin", "sex", "member_of_a_labor_union", "reason_for_unemployment",
    "full_or_part_time_employment_stat", "capital_gains", "capital_losses", "dividends_from_stocks",
    "tax_filer_status", "region_of_previous_residence", "state_of_previous_residence",
    "detailed_household_and_family_stat", "detailed_household_summary_in_household", "instance_weight",
    "migration_code_change_in_msa", "migration_code_change_in_reg", "migration_code_move_within_reg",
    "live_in_this_house_1_year_ago", "migration_prev_res_in_sunbelt", "num_persons_worked_for_employer",
    "family_members_under_18", "country_of_birth_father", "country_of_birth_mother", "country_of_birth_self",
    "citizenship", "own_business_or_self_employed", "fill_inc_questionnaire_for_veterans_admin", "veterans_benefits",
    "weeks_worked_in_year", "year", "income",
)  # fmt: skip
NUMERICAL = (
    "age", "wage_per_hour", "capital_gains", "capital_losses", "dividends_from_stocks",
    "num_persons_worked_for_employer", "weeks_worked_in_year",
)  # fmt: skip
INCOME = {"- 50000.": 0, "50000+.": 1}
FILES = ("census-income.data", "census-income.test")
ENCODED = tuple(f"census_income_{part}.csv" for part in ("train", "val", "test"))  # as torch-rechub writes them
SEED = 1

_INPUTS = tuple(c for c in COLUMNS if c not in ("marital_status", "income", "instance_weight"))
# Column -> its name in the encoded files' header, which has the publisher's hyphens and "divdends".
HEADER = {
    c: c.replace("_", " ").replace("code change", "code-change").replace("code move", "code-move").replace(
        "dividends", "divdends"
    )
    for c in (*_INPUTS, "marital_status", "income")
}  # fmt: skip


class CensusIncome(Dataset):
    """One person is one user, one group and one row; the only item is a constant, and all columns are user-side fields.

    Labels, for everybody: ``income`` 1 for "50000+."; ``never_married`` 1 for the marital status "Never married". Both
    of their columns are dropped from the input, and so is the instance weight, which describes the survey rather than
    the person. Seven columns are numbers; codes (industry, occupation, veterans benefits, year) count as categories.
    "?" is a missing value.

    The files have no time. The parts are told by a made-up one: 0 for the training file, 1 and 2 for the two halves of
    the test file, drawn by a fixed seed (the first half of a permutation, rounded down, is validation).

    The files as encoded by torch-rechub are read too: ``census_income_{train,val,test}.csv`` with a header, both labels
    as 0 or 1, categories as codes ("?" is one of them) and numbers scaled to 0..1. Those codes and scales were fitted
    by someone else who saw all three parts, and their halves of the test file are drawn without a seed: results do not
    compare with those of the published files.
    """

    domain = "census (not a recommender)"
    sizes = {"": "199,523 + 99,762 people"}
    about = (
        "299,285 people of a survey by the US Census Bureau, described by 42 columns; duplicates are kept, nobody is "
        "left out. Not a recommender but the usual control: no items, histories or texts. The classic split: the "
        "training file trains, a random half of the test file validates, the other tests. The tasks are related only "
        "through the person: children have neither married nor an income. never_married is nearly told by an input, "
        "since some values of detailed_household_and_family_stat say 'never marr'. Not the Adult set of 48,842 rows."
    )
    licence = "see the page of the set at the UCI Machine Learning Repository"
    citation = "Census-Income (KDD). UCI Machine Learning Repository. Donated by Terran Lane and Ronny Kohavi"
    url = "https://archive.ics.uci.edu/ml/machine-learning-databases/census-income-mld/"
    tasks = (Task("income", "binary", role="income"), Task("never_married", "binary", role="marital status"))
    fields = tuple(Field(c, "user", "numerical" if c in NUMERICAL else "categorical") for c in _INPUTS)
    forbidden = ("income", "never_married", "marital_status")
    history = 0
    split = Temporal(valid=1, test=2, absolute=True)
    # The publisher gives no checksum.
    sources = (
        Local({f: f for f in FILES}, f"download {FILES[0]}.gz and {FILES[1]}.gz from {url}"),
        Local({f: f for f in ENCODED}, f"or put torch-rechub's encoded {', '.join(ENCODED)} into one folder"),
    )

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from either layout. Raises BenchError naming file, line and column on bad input."""
        if ENCODED[0] in raw:
            parts = [_encoded(raw[name]) for name in ENCODED]
            times = np.repeat(np.arange(3), [part.height for part in parts])
        else:
            parts = [_read(raw[name]) for name in FILES]
            train, test = (part.height for part in parts)
            order = np.random.default_rng((SEED, self.version)).permutation(test)
            half = np.where(np.isin(np.arange(test), order[: test // 2]), 1, 2)
            times = np.concatenate([np.zeros(train, dtype=np.int64), half])
        time = pl.Series("time", times)
        people = pl.concat(parts).with_row_index("user").cast({"user": pl.Int64})
        return Tables(
            groups=people.select("user", group="user").with_columns(
                time, history=pl.lit([], pl.List(pl.Int64)), history_time=pl.lit(None, pl.Int64)
            ),
            rows=people.select("income", "never_married", group="user", item=pl.lit(0, pl.Int64)),
            items=pl.DataFrame({"item": [0], "text": [""]}),
            users=people.select("user", *_INPUTS),
        )


def _read(path: Path) -> pl.DataFrame:
    """The inputs and labels of one file, in file order."""
    if where := odd_line(path, len(COLUMNS)):
        raise BenchError(f"{path}{where}; fetch the file again")
    try:
        table = pl.read_csv(path, has_header=False, schema=dict.fromkeys(COLUMNS, pl.String), quote_char=None)
    except pl.exceptions.NoDataError:
        table = pl.DataFrame()
    except pl.exceptions.PolarsError as error:
        raise BenchError(f"{path}: not a readable text file ({str(error).splitlines()[0]}); fetch it again") from error
    table = not_empty(table, path).with_columns(pl.all().str.strip_chars().fill_null(""))  # values follow ", "
    for column in NUMERICAL:
        value = pl.col(column).cast(pl.Float64, strict=False).fill_null(-1)
        reject(table, path, column, ~(value.is_finite() & (value >= 0)), "is not a number of at least 0")
    reject(table, path, "marital_status", pl.col("marital_status").is_in(["", "?"]), "is no marital status")
    reject(table, path, "income", ~pl.col("income").is_in(list(INCOME)), f"is none of {', '.join(INCOME)}")
    return table.select(
        *(
            pl.col(c).cast(pl.Float64) if c in NUMERICAL else pl.col(c).replace(["?", ""], [None, None])
            for c in _INPUTS
        ),
        income=pl.col("income").replace_strict(INCOME, return_dtype=pl.Int8),
        never_married=(pl.col("marital_status") == "Never married").cast(pl.Int8),
    )


def _encoded(path: Path) -> pl.DataFrame:
    """The inputs and labels of one encoded file, in file order."""
    labels = dict.fromkeys(("income", "marital_status"), pl.Boolean)
    kinds: Columns = {**dict.fromkeys(_INPUTS, pl.Int64), **dict.fromkeys(NUMERICAL, pl.Float64), **labels}
    table = read_columns(path, {HEADER[c]: kind for c, kind in kinds.items()})
    return table.select(
        *(pl.col(HEADER[c]).cast(pl.Float64 if c in NUMERICAL else pl.String).alias(c) for c in _INPUTS),
        income=pl.col(HEADER["income"]).cast(pl.Int8),
        never_married=pl.col(HEADER["marital_status"]).cast(pl.Int8),
    )
