from bench.delivery import Delivery, Outgoing
from bench.protocol import Create, Send, encode


def delivery(count: int, *, window: int = 3, ordered: bool = False) -> Delivery:
    messages = (Outgoing(f"c-{n}", "alice", b'"%d"' % n) for n in range(count))
    return Delivery("s", Create(user_id="alice"), messages, window, ordered)


def taken(deliverer: Delivery) -> list[str]:
    return [send.client_id for _, send in deliverer.take()]


def test_no_more_than_the_window_is_taken() -> None:
    deliverer = delivery(5)
    assert taken(deliverer) == ["c-0", "c-1", "c-2"]
    assert taken(deliverer) == []


def test_an_ack_makes_room_for_the_next() -> None:
    deliverer = delivery(5)
    deliverer.take()
    deliverer.acknowledge("c-0", 1)
    assert taken(deliverer) == ["c-3"]


def test_it_is_done_when_all_is_acknowledged() -> None:
    deliverer = delivery(1)
    assert not deliverer.is_done()
    deliverer.take()
    assert not deliverer.is_done()
    deliverer.acknowledge("c-0", 7)
    assert deliverer.is_done()
    assert deliverer.last_seq == 7


def test_a_lost_connection_repeats_what_was_in_flight_in_its_order() -> None:
    deliverer = delivery(5)
    deliverer.take()
    deliverer.acknowledge("c-0", 1)
    deliverer.take()
    deliverer.rewind()
    assert taken(deliverer) == ["c-1", "c-2", "c-3"]


def test_a_refused_message_waits_until_every_other_answer_is_in() -> None:
    deliverer = delivery(9)
    deliverer.take()
    deliverer.refuse("c-1")
    assert taken(deliverer) == []
    deliverer.acknowledge("c-0", 1)
    deliverer.acknowledge("c-2", 2)
    assert taken(deliverer) == ["c-1"]
    assert taken(deliverer) == ["c-3", "c-4"]


def test_refusals_are_repeated_in_the_order_of_sending_and_not_of_refusing() -> None:
    deliverer = delivery(3)
    deliverer.take()
    for client_id in ("c-2", "c-0", "c-1"):
        deliverer.refuse(client_id)
    assert taken(deliverer) == ["c-0", "c-1", "c-2"]


def test_an_ordered_delivery_names_the_seq_that_it_expects_also_when_it_repeats() -> None:
    deliverer = delivery(3, ordered=True)
    first = [send.expected_seq for _, send in deliverer.take()]
    deliverer.rewind()
    again = [send.expected_seq for _, send in deliverer.take()]
    assert first == again == [0, 1, 2]


def test_content_goes_out_byte_for_byte() -> None:
    content = b'{"big":123456789012345678901234567890,"e":1e999}'
    messages = iter([Outgoing("c", "alice", content)])
    ((_, send),) = Delivery("s", Create(user_id="alice"), messages, 1).take()
    assert isinstance(send, Send)
    assert content in encode(send)
