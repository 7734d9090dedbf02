import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Objects;
import java.util.UUID;
import summarisation.activity.ActivitiesApi;
import summarisation.order.ApiException;
import summarisation.order.OrdersApi;
import summarisation.order.model.OrderStatus;
import summarisation.order.model.PlaceOrder;
import summarisation.order.model.PlaceOrderLine;
import summarisation.order.model.Problem;
import summarisation.order.model.ProblemType;

/**
 * Uses both generated clients against running services: places an order, reads it, is told of a mistake and of a
 * missing order by kinds it can switch on, and sees the order counted.
 */
public final class UseClients {
    private static final String BEARER = "Bearer " + System.getenv("TOKEN");

    public static void main(String[] arguments) throws Exception {
        var client = new summarisation.order.ApiClient();
        client.updateBaseUri(System.getenv("ORDERS_URL"));
        client.setRequestInterceptor(request -> request.header("Authorization", BEARER));
        var orders = new OrdersApi(client);

        var line = new PlaceOrderLine().productId(UUID.fromString("0192f0c1-7a5e-7000-8000-000000000001")).quantity(2L);
        var wanted = new PlaceOrder().customerRef("C-java").orderItems(List.of(line));
        var placed = orders.placeOrderWithHttpInfo(wanted, "java-1");
        expect(201, placed.getStatusCode());
        expect(OrderStatus.NEW, placed.getData().getStatusName());
        var listed = orders.listOrders("C-java", OrderStatus.NEW, null, null, 1, null);
        expect(placed.getData().getOrderRef(), listed.get(0).getOrderRef());

        line.setQuantity(3L);
        expect(ProblemType.IDEMPOTENCY_KEY_REUSED, kindOf(() -> orders.placeOrder(wanted, "java-1")));
        expect(ProblemType.NOT_FOUND, kindOf(() -> orders.findOrder("OS999999-ORD")));
        awaitFigure();
    }

    /** The order is counted, in the figures of today. */
    private static void awaitFigure() throws Exception {
        var client = new summarisation.activity.ApiClient();
        client.updateBaseUri(System.getenv("ACTIVITY_URL"));
        client.setRequestInterceptor(request -> request.header("Authorization", BEARER));
        var figures = new ActivitiesApi(client);
        var end = Instant.now().plus(Duration.ofMinutes(1));
        while (figures.figuresOfDay("today").stream()
                .noneMatch(figure -> figure.getActivityTypeCode().equals("ORDER_CREATED") && figure.getQuantity() > 0)) {
            if (Instant.now().isAfter(end)) throw new AssertionError("the order was not counted");
            Thread.sleep(100);
        }
    }

    private interface Call {
        void run() throws ApiException;
    }

    private static ProblemType kindOf(Call call) throws Exception {
        try {
            call.run();
        } catch (ApiException refused) {
            return new ObjectMapper().readValue(refused.getResponseBody(), Problem.class).getType();
        }
        throw new AssertionError("it was not refused");
    }

    private static void expect(Object wanted, Object found) {
        if (!Objects.equals(wanted, found)) throw new AssertionError("expected " + wanted + ", found " + found);
    }

    private UseClients() {}
}
