import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.kstream.*;

/** Counts the activities of the topic TOPIC by day and type, exactly once, into the topic COUNTS. Arguments: settings, key=value. */
public class DayCounts {
    static String field(String json, String name) {
        int i = json.indexOf('"' + name + "\":\"") + name.length() + 4;
        return json.substring(i, json.indexOf('"', i));
    }

    public static void main(String[] args) throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", System.getenv("BROKERS"));
        p.put("application.id", "day-counts");
        p.put("processing.guarantee", "exactly_once_v2");
        p.put("auto.offset.reset", "earliest");
        p.put("replication.factor", "1");
        p.put("default.key.serde", Serdes.StringSerde.class);
        p.put("default.value.serde", Serdes.StringSerde.class);
        String in = System.getenv("TOPIC"), out = System.getenv("COUNTS");
        for (String a : args) p.put(a.split("=", 2)[0], a.split("=", 2)[1]);

        StreamsBuilder b = new StreamsBuilder();
        b.stream(in, Consumed.with(Serdes.String(), Serdes.String()))
            .groupBy((k, v) -> field(v, "activityAt").substring(0, 10) + "/" + field(v, "activityTypeCode"),
                     Grouped.with("day", Serdes.String(), Serdes.String()))
            .count(Materialized.as("counts"))
            .toStream().to(out, Produced.with(Serdes.String(), Serdes.Long()));

        KafkaStreams s = new KafkaStreams(b.build(), p);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> s.close(Duration.ofSeconds(10))));
        s.start();
        Thread.sleep(Long.MAX_VALUE);
    }
}
