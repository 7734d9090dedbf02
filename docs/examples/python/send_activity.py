"""What a service has to send so that its activities are counted: send_activity.py BROKERS TOPIC TYPE."""

import sys
import uuid
from datetime import datetime, timezone

from cloudevents.core.bindings.kafka import to_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Producer

brokers, topic, activity_type = sys.argv[1:]
# Made once, where the activity happens, and kept with it: whatever is sent again has the same one.
reference = str(uuid.uuid4())
at = datetime.now(timezone.utc)
event = CloudEvent(
    attributes={
        "id": reference,
        "type": f"summarisation.{activity_type}.v1",
        "source": "/stock-service",
        "time": at,
        "datacontenttype": "application/json",
    },
    data={"messageRef": reference, "activityTypeCode": activity_type, "activityAt": at.isoformat()},
)
message = to_binary(event, JSONFormat())

failures = []
# An unknown outcome is repeated, and a copy counts once: acks=all and retries lose nothing.
producer = Producer({"bootstrap.servers": brokers, "acks": "all"})
producer.produce(
    topic,
    key=reference,
    value=message.value,
    headers=message.headers,
    on_delivery=lambda error, _: failures.append(error) if error else None,
)
unsent = producer.flush(30)
if unsent or failures:
    sys.exit(f"not sent: {failures or 'no answer in time'}")
