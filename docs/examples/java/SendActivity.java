import io.cloudevents.core.builder.CloudEventBuilder;
import io.cloudevents.kafka.CloudEventSerializer;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.Map;
import java.util.UUID;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringSerializer;

/** What a service has to send so that its activities are counted: {@code SendActivity BROKERS TOPIC TYPE}. */
public final class SendActivity {
    public static void main(String[] arguments) throws Exception {
        String brokers = arguments[0], topic = arguments[1], type = arguments[2];
        // Made once, where the activity happens, and kept with it: whatever is sent again has the same one.
        var reference = UUID.randomUUID();
        var at = OffsetDateTime.now(ZoneOffset.UTC);
        var value = """
                {"messageRef": "%s", "activityTypeCode": "%s", "activityAt": "%s"}""".formatted(reference, type, at);
        var event = CloudEventBuilder.v1()
                .withId(reference.toString())
                .withType("summarisation." + type + ".v1")
                .withSource(URI.create("/stock-service"))
                .withTime(at)
                .withData("application/json", value.getBytes(StandardCharsets.UTF_8))
                .build();
        // An unknown outcome is repeated, and a copy counts once: acks=all and retries lose nothing.
        Map<String, Object> settings = Map.of("bootstrap.servers", brokers, "acks", "all");
        // Binary mode, which is the serializer's default: attributes in headers, the value as it is.
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new CloudEventSerializer())) {
            producer.send(new ProducerRecord<>(topic, reference.toString(), event)).get();
        }
    }

    private SendActivity() {}
}
