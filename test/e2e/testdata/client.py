"""A naive client in another language: python3-grpcio, no code of ours, and no
generated code either; the messages come from a FileDescriptorSet.

    client.py <target> <descriptor set>

It fails with the first thing that is not as it must be, and prints as JSON what
it wrote: {"offset": "value", ...}.
"""

import json
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

target, descriptors = sys.argv[1:]

pool = descriptor_pool.DescriptorPool()
with open(descriptors, "rb") as f:
    for file in descriptor_pb2.FileDescriptorSet.FromString(f.read()).file:
        pool.Add(file)
factory = message_factory.MessageFactory(pool)


def message(name):
    return factory.GetPrototype(pool.FindMessageTypeByName(name))


def stub(channel, method):
    """What generated code would make of a method."""
    service, name = method.rsplit("/", 1)
    m = pool.FindServiceByName(service).FindMethodByName(name)
    proto = m.containing_service.file.serialized_pb
    streams = next(
        d
        for s in descriptor_pb2.FileDescriptorProto.FromString(proto).service
        if s.name == m.containing_service.name
        for d in s.method
        if d.name == name
    )
    kind = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }[streams.client_streaming, streams.server_streaming]
    return kind(
        "/" + method,
        request_serializer=lambda r: r.SerializeToString(),
        response_deserializer=factory.GetPrototype(m.output_type).FromString,
    )


ProduceRequest = message("log.v1.ProduceRequest")
ConsumeRequest = message("log.v1.ConsumeRequest")
GetOffsetsRequest = message("log.v1.GetOffsetsRequest")
GetServersRequest = message("log.v1.GetServersRequest")
HealthCheckRequest = message("grpc.health.v1.HealthCheckRequest")
Status = message("google.rpc.Status")
ErrorInfo = message("google.rpc.ErrorInfo")

wrote = {}


def check(ok, *what):
    if not ok:
        raise SystemExit("not as it must be: " + " ".join(map(str, what)))


def record(value, **more):
    r = ProduceRequest()
    r.record.value = value.encode()
    r.record.key = more.get("key", "").encode()
    for k, v in more.get("headers", {}).items():
        r.record.headers.add(key=k, value=v)
    return r


def refused(call):
    """The error of a call that must fail: its code, and the reasons in its details."""
    try:
        call()
    except grpc.RpcError as e:
        reasons = {}
        for key, value in e.trailing_metadata():
            if key == "grpc-status-details-bin":
                for any in Status.FromString(value).details:
                    if any.type_url.endswith("/google.rpc.ErrorInfo"):
                        info = ErrorInfo.FromString(any.value)
                        reasons[info.reason] = dict(info.metadata)
        return e.code(), reasons
    raise SystemExit("not as it must be: the call was answered")


def run(channel, name):
    produce, consume = stub(channel, "log.v1.Log/Produce"), stub(channel, "log.v1.Log/Consume")
    tail, pipe = stub(channel, "log.v1.Log/ConsumeStream"), stub(channel, "log.v1.Log/ProduceStream")
    offsets = stub(channel, "log.v1.Log/GetOffsets")

    # One record, with everything in it, and a session that reads what it wrote.
    session = (("logd-session", name),)
    value = name + " one"
    answer, call = produce.with_call(
        record(value, key="k", headers={"h": b"\x00\xff"}), timeout=30, metadata=session)
    check("logd-position" in dict(call.trailing_metadata()) or "logd-position" in dict(call.initial_metadata()),
          "no position came back")
    wrote[answer.offset] = value
    got = consume(ConsumeRequest(offset=answer.offset), timeout=30, metadata=session).record
    check(got.value == value.encode() and got.key == b"k", got)
    check([(h.key, h.value) for h in got.headers] == [("h", b"\x00\xff")], got)

    # The same request id and record again: the same offset.
    once = (("logd-request-id", name + "-1"),)
    first = produce(record(name + " once"), timeout=30, metadata=once).offset
    check(produce(record(name + " once"), timeout=30, metadata=once).offset == first, "appended twice")
    wrote[first] = name + " once"

    # Streams both ways: as many answers as records, in order.
    values = ["%s stream %d" % (name, i) for i in range(300)]
    begin = None
    for value, answer in zip(values, pipe(iter([record(v) for v in values]), timeout=60)):
        begin = answer.offset if begin is None else begin
        wrote[answer.offset] = value
    check(len(wrote) == 302 and list(wrote)[2:] == sorted(list(wrote)[2:]), "streamed", len(wrote))
    reading, n = tail(ConsumeRequest(offset=begin), timeout=60), begin
    check(reading.initial_metadata() is not None, "no headers")
    for got in reading:
        check(got.record.offset == n, "offset", got.record.offset, "instead of", n)
        check(n not in wrote or got.record.value == wrote[n].encode(), "offset", n, got.record.value)
        n += 1
        if n > max(wrote):
            break
    reading.cancel()
    code, _ = refused(lambda: next(reading))
    check(code == grpc.StatusCode.CANCELLED, code)

    # An idle tail sends its headers at once, and ends with the deadline.
    end = offsets(GetOffsetsRequest(), timeout=30).next
    idle = tail(ConsumeRequest(offset=end), timeout=1)
    idle.initial_metadata()
    code, _ = refused(lambda: next(idle))
    check(code == grpc.StatusCode.DEADLINE_EXCEEDED, code)

    # What is refused says why, in the details.
    code, reasons = refused(lambda: consume(ConsumeRequest(offset=end + 10**6), timeout=30))
    check(code == grpc.StatusCode.OUT_OF_RANGE, code)
    check(int(reasons["OFFSET_OUT_OF_RANGE"]["next"]) >= end, reasons)
    code, reasons = refused(lambda: produce(record("x" * (1 << 20)), timeout=30))
    check(code == grpc.StatusCode.INVALID_ARGUMENT, code, reasons)
    code, _ = refused(lambda: channel.unary_unary("/log.v1.Log/Nope")(b"", timeout=30))
    check(code == grpc.StatusCode.UNIMPLEMENTED, code)
    code, _ = refused(lambda: channel.unary_unary("/node.v1.Node/Stats")(b"", timeout=30))
    check(code == grpc.StatusCode.PERMISSION_DENIED, code)

    servers = stub(channel, "log.v1.Log/GetServers")(GetServersRequest(), timeout=30).servers
    check(len(servers) == 1 and servers[0].is_leader, servers)
    health = stub(channel, "grpc.health.v1.Health/Check")(HealthCheckRequest(), timeout=30)
    check(health.status == 1, health)


written = {}
for name, options in {
    "plain": {},
    "gzip": {"compression": grpc.Compression.Gzip},
}.items():
    wrote = {}
    with grpc.insecure_channel(target, **options) as channel:
        run(channel, name)
    written.update(wrote)
json.dump(written, sys.stdout)
