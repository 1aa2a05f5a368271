import os
from pathlib import Path

import pytest

from routedk import DataError, Item, Session, SettingError
from routedk.data import DataOptions, load_sessions
from routedk.data.order_lines import find_columns

SHOPS = {
    "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country": (
        "session=InvoiceNo,item=StockCode,title=Description,price=UnitPrice,"
        "timestamp=InvoiceDate,quantity=Quantity"
    ),
    "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID": (
        "session=Invoice,item=StockCode,title=Description,price=Price,timestamp=InvoiceDate,"
        "quantity=Quantity"
    ),
    "order_id,product_id,add_to_cart_order,reordered,product_name,aisle_id": (
        "session=order_id,item=product_id,title=product_name"
    ),
    "Name,Email,Created at,Lineitem quantity,Lineitem name,Lineitem price,Lineitem sku,Id,Vendor": (
        "session=Name,item=Lineitem sku,title=Lineitem name,price=Lineitem price,"
        "timestamp=Created at,quantity=Lineitem quantity"
    ),
    "Order Number,Order Status,Order Date,SKU,Item #,Item Name,Quantity,Item Cost,Category": (
        "session=Order Number,item=SKU,title=Item Name,category=Category,price=Item Cost,"
        "timestamp=Order Date,quantity=Quantity"
    ),
    "Order Date,Order ID,Title,Category,ASIN/ISBN,UNSPSC Code,Website": (
        "session=Order ID,title=Title,category=Category,timestamp=Order Date"
    ),
    "Order ID,ASIN,Product Name,Quantity": (
        "session=Order ID,item=ASIN,title=Product Name,quantity=Quantity"
    ),
    "item_id,order_id,product_id,sku,name,price,qty_ordered,created_at": (
        "session=order_id,item=product_id,title=name,price=price,timestamp=created_at,"
        "quantity=qty_ordered"
    ),
    "event_time,event_type,product_id,category_id,brand,price,user_id,user_session": (
        "session=user_session,item=product_id,price=price,timestamp=event_time"
    ),
    "Transaction,Item": "session=Transaction,item=Item,title=Item",
    "basketId,itemId,date": "session=basketId,item=itemId,timestamp=date",
    "order_id,order_number,product": "session=order_id,item=product,title=product",
    "Order_ID,order id,title": "session=Order_ID,title=title",
}


@pytest.mark.parametrize("header", SHOPS)
def test_columns_of_shops(header: str) -> None:
    found = find_columns(header.split(","), {}, "f.csv")
    assert ",".join(f"{role}={name}" for role, name in found.items()) == SHOPS[header]


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        ("a,b", None, "no column of a usual name for the session; columns: a, b (say which: "),
        ("order,b", None, "no column of a usual name for the item; columns: order, b (say which"),
        ("order,sku", "session=cart", "no column 'cart'; columns: order, sku (say which"),
        (
            "Order ID,InvoiceNo,Order Number,sku",
            None,
            "the session may be 'Order ID' or 'Order Number' or 'InvoiceNo'; columns: Order ID, ",
        ),
    ],
)
def test_what_cannot_be_understood_is_said_with_the_columns(
    tmp_path: Path, header: str, columns: str | None, message: str
) -> None:
    path = tmp_path / "f.csv"
    path.write_text(f"{header}\n" + ",".join("1" for _ in header.split(",")) + "\n")
    with pytest.raises(DataError) as caught:
        load_sessions(path, DataOptions(columns=columns))
    assert str(caught.value).startswith(f"{path}: {message}")


def test_columns_that_the_user_names(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("Bon,Ware,order,price,Preis\n1,a,7,x,2\n1,b,8,x,3\n")
    options = DataOptions(columns=" session = bon, item=Ware,title=Ware , price=PREIS")
    assert load_sessions(path, options) == [
        Session("1", (Item("a", "a", (), 2.0), Item("b", "b", (), 3.0)))
    ]


@pytest.mark.parametrize(
    "text", ["session", "session=", "basket=a", "=a", "session=a,", ",", "session=a,session=b"]
)
def test_columns_of_the_wrong_form(text: str) -> None:
    with pytest.raises(SettingError, match=r"must be of the form session=InvoiceNo,item=StockCode"):
        DataOptions(columns=text)


def test_a_column_that_is_named_exactly_is_the_one(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("Order #,Order,SKU\n1,7,a\n1,8,b\n2,7,c\n2,8,d\n")
    sessions = load_sessions(path, DataOptions(columns="session=Order"))
    assert [(one.id, [item.id for item in one.items]) for one in sessions] == [
        ("7", ["a", "c"]),
        ("8", ["b", "d"]),
    ]


def test_the_place_of_a_line_is_no_id_where_there_is_another() -> None:
    found = find_columns(["Order No", "Item No", "SKU", "Description"], {}, "f.csv")
    assert found["item"] == "SKU"
    assert find_columns(["Order No", "Item No"], {}, "f.csv")["item"] == "Item No"


def test_named_columns_make_order_lines_of_what_has_items(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"o": 1, "items": 3, "t": "Kettle"}\n{"o": 1, "items": 3, "t": "Cup"}\n')
    assert len(load_sessions(path, DataOptions(columns="session=o,title=t"))[0].items) == 2
    with pytest.raises(DataError, match="no column 'Order'"):
        load_sessions("demo", DataOptions(columns="session=Order"))


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        ("sep=;\norder;sku;title\n1;a;Kettle\n1;b;Cup, red\n", ["Kettle", "Cup, red"]),
        ("\n \norder;sku;title\n1;a;Kettle\n1;b;Cup\n", ["Kettle", "Cup"]),
        ("order,name,price,name\n1,Kettle,1,Ann\n1,Cup,2,Bob\n", ["Kettle", "Cup"]),
    ],
)
def test_what_spreadsheets_write_above_and_twice(
    tmp_path: Path, text: str, titles: list[str]
) -> None:
    path = tmp_path / "f.csv"
    path.write_text(text)
    assert [item.title for item in load_sessions(path)[0].items] == titles


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('order,"sku"x,title\n1,a,Kettle\n', ":1: invalid CSV"),
        ("", ": it has no lines"),
        ("order,sku\n", ": it has no lines"),
    ],
)
def test_a_table_without_lines_or_header(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "f.csv"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        load_sessions(path)
    assert message in str(caught.value)


def test_a_file_whose_name_is_no_text(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xe4d.csv"))
    path.write_text("order,sku\n1,a\n1,b\n1,b\n")
    assert len(load_sessions(path)[0].items) == 2
