// Uses both generated clients against running services: places an order, reads it, is told of a mistake and of a
// missing order by kinds it can switch on, and sees the order counted.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"clients/activity"
	"clients/order"
)

func main() {
	ctx, end := context.WithTimeout(context.Background(), time.Minute)
	defer end()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	orders := order.NewAPIClient(ordersAt(os.Getenv("ORDERS_URL"))).OrdersAPI
	ctx = context.WithValue(ctx, order.ContextAccessToken, os.Getenv("TOKEN"))
	line := order.NewPlaceOrderLine("0192f0c1-7a5e-7000-8000-000000000001", 2)
	wanted := order.NewPlaceOrder("C-go", []order.PlaceOrderLine{*line})
	placed, response, err := orders.PlaceOrder(ctx).IdempotencyKey("go-1").PlaceOrder(*wanted).Execute()
	if err != nil {
		return fmt.Errorf("place an order: %w", err)
	}
	if response.StatusCode != 201 || placed.StatusName != order.NEW {
		return fmt.Errorf("placed with %d as %s", response.StatusCode, placed.StatusName)
	}
	listed, _, err := orders.ListOrders(ctx).CustomerRef("C-go").Status(order.NEW).Limit(1).Execute()
	if err != nil || len(listed) != 1 || listed[0].OrderRef != placed.OrderRef {
		return fmt.Errorf("list %v: %w", listed, err)
	}
	wanted.OrderItems[0].Quantity = 3
	_, _, err = orders.PlaceOrder(ctx).IdempotencyKey("go-1").PlaceOrder(*wanted).Execute()
	if kind := kindOf(err); kind != order.IDEMPOTENCY_KEY_REUSED {
		return fmt.Errorf("a key of another request: %s, %w", kind, err)
	}
	_, _, err = orders.FindOrder(ctx, "OS999999-ORD").Execute()
	if kind := kindOf(err); kind != order.NOT_FOUND {
		return fmt.Errorf("a missing order: %s, %w", kind, err)
	}
	return awaitFigure(ctx)
}

// The order is counted, in the figures of today.
func awaitFigure(ctx context.Context) error {
	configuration := activity.NewConfiguration()
	configuration.Servers = activity.ServerConfigurations{{URL: os.Getenv("ACTIVITY_URL")}}
	figures := activity.NewAPIClient(configuration).ActivitiesAPI
	ctx = context.WithValue(ctx, activity.ContextAccessToken, os.Getenv("TOKEN"))
	for {
		today, _, err := figures.FiguresOfDay(ctx, "today").Execute()
		if err != nil {
			return fmt.Errorf("figures of today: %w", err)
		}
		for _, figure := range today {
			if figure.ActivityTypeCode == "ORDER_CREATED" && figure.Quantity > 0 {
				return nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func ordersAt(url string) *order.Configuration {
	configuration := order.NewConfiguration()
	configuration.Servers = order.ServerConfigurations{{URL: url}}
	return configuration
}

// kindOf is the type of the problem that was answered.
func kindOf(err error) order.ProblemType {
	var told *order.GenericOpenAPIError
	if errors.As(err, &told) {
		if problem, is := told.Model().(order.Problem); is {
			return problem.Type
		}
	}
	return ""
}
