//! Booking a parcel: its row, and the message that tells of it, in one transaction.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode},
    web::{Data, Payload, ServiceConfig},
};
use outbox::transaction::{Activity, TransactError, Transactions};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use shared::{
    contract::message::ActivityTypeCode,
    runtime::traces::TraceContext,
    web::{
        http::{Api, Operation},
        json::{self, Object},
        problem::{Problem, Violation},
    },
};
use utoipa::ToSchema;
use uuid::Uuid;

const RECIPIENT: &str = "must be 1 to 64 characters, no control characters";

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewParcel {
    recipient: String,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Parcel {
    parcel_id: Uuid,
}

pub fn routes(transactions: Transactions) -> impl Fn(&mut ServiceConfig) + Clone + Send + 'static {
    let example = json!({ "recipient": "C-1001" });
    let answer = json!({ "parcelId": "0192f0c2-3b1d-7c40-a1b2-c3d4e5f60718" });
    let booking = Operation::new(Method::POST, "/parcels", "parcels:write", book)
        .named("bookParcel", "Book a parcel", "A 503 or a lost answer leaves open whether it was booked.")
        .body::<NewParcel>(example)
        .answers::<Parcel>(StatusCode::CREATED, "It is booked, and will be counted.", &[], answer);
    let api = Api::new("parcels", "Books parcels and announces each one.").section("parcels", "Parcels.", [booking]);
    let (transactions, api) = (Data::new(transactions), api.routes());
    move |routes| {
        routes.app_data(transactions.clone());
        api(routes);
    }
}

async fn book(request: HttpRequest, body: Payload, transactions: Data<Transactions>) -> Result<HttpResponse, Problem> {
    let Object(NewParcel { recipient }) = json::body(&request, body).await?;
    if !(1..=64).contains(&recipient.chars().count()) || recipient.contains(char::is_control) {
        return Err(Problem::unprocessable(vec![Violation::new("/recipient", RECIPIENT)]));
    }
    // Drawn before: a transaction that is attempted again books the same parcel.
    let parcel_id = Uuid::now_v7();
    let code = ActivityTypeCode::parse("PARCEL_SHIPPED").expect("it is a code");
    let fields = Map::from_iter([("parcelId".to_owned(), parcel_id.to_string().into())]);
    let activity = Activity::new(code, &parcel_id.to_string(), &fields, TraceContext::of_request(&request));
    let booked = transactions.transact(activity.map_err(Problem::internal)?, move |transaction, booked_at| {
        let insert = sqlx::query("INSERT INTO parcels (parcel_id, recipient, booked_at) VALUES ($1, $2, $3)");
        let insert = insert.bind(parcel_id).bind(recipient.clone()).bind(booked_at);
        Box::pin(async move { insert.execute(transaction).await.map(|_| true) })
    });
    match booked.await {
        Ok(_) => Ok(HttpResponse::Created().json(Parcel { parcel_id })),
        Err(TransactError::Unavailable) => Err(Problem::unavailable()),
        Err(refused @ TransactError::Refused(_)) => Err(Problem::internal(refused)),
    }
}
