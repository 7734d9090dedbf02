// What a service has to send so that its activities are counted: go run . BROKERS TOPIC TYPE
package main

import (
	"context"
	"log"
	"os"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/cloudevents/sdk-go/protocol/kafka_sarama/v2"
	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/google/uuid"
)

type activity struct {
	MessageRef       string    `json:"messageRef"`
	ActivityTypeCode string    `json:"activityTypeCode"`
	ActivityAt       time.Time `json:"activityAt"`
}

func main() {
	brokers, topic, activityType := strings.Split(os.Args[1], ","), os.Args[2], os.Args[3]
	// Made once, where the activity happens, and kept with it: whatever is sent again has the same one.
	reference, at := uuid.NewString(), time.Now().UTC()

	event := cloudevents.NewEvent()
	event.SetID(reference)
	event.SetType("summarisation." + activityType + ".v1")
	event.SetSource("/stock-service")
	event.SetTime(at)
	check(event.SetData(cloudevents.ApplicationJSON, activity{reference, activityType, at}))

	settings := sarama.NewConfig()
	settings.Version = sarama.V2_8_0_0
	// An unknown outcome is repeated, and a copy counts once: acks=all and retries lose nothing.
	settings.Producer.RequiredAcks = sarama.WaitForAll
	sender, err := kafka_sarama.NewSender(brokers, settings, topic)
	check(err)
	client, err := cloudevents.NewClient(sender)
	check(err)
	// Binary mode, which is the default: attributes in headers, the value as it is.
	ctx := kafka_sarama.WithMessageKey(context.Background(), sarama.StringEncoder(reference))
	if result := client.Send(ctx, event); cloudevents.IsUndelivered(result) {
		log.Fatalf("not sent: %v", result)
	}
	check(sender.Close(context.Background()))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
