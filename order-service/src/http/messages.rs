//! The outbox as operators see it.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode},
    web::{Data, Payload},
};
use serde::Deserialize;
use serde_json::{Value, json};
use shared::{
    contract::text,
    operators::audit::{self, Author},
    runtime::database::Pool,
    web::{
        auth::Caller,
        http::{Operation, Parameter, path_parameter, read, schema},
        json::{self, Object},
        paging,
        problem::{Problem, Violation},
        query::Query,
    },
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::messages::{self, Decision, MessageFilter, MessagePage, OutboxMessage, Retried, State};

pub(super) fn operations() -> [Operation; 5] {
    let message_ref = || Parameter::path("messageRef", "The message's own name.", schema::formatted("uuid"));
    [
        Operation::new(Method::GET, "/admin/messages", "operations", list)
            .named(
                "listMessages",
                "Messages of one state, newest first",
                "A page ends where enough was looked at, too: it may be short, or empty, and have a next one.",
            )
            .parameter(Parameter::query("state", "Only these; `failed` if absent.", schema::named::<State>()))
            .parameters(MessageFilter::parameters())
            .answers_page::<OutboxMessage>("A page.", json!([message("failed")])),
        Operation::new(Method::GET, "/admin/messages/{messageRef}", "operations", find)
            .named("findMessage", "One message", "")
            .parameter(message_ref())
            .answers::<OutboxMessage>(StatusCode::OK, "The message.", &[], message("published"))
            .problems(&[404]),
        Operation::new(Method::POST, "/admin/messages/{messageRef}/retry", "operations", retry)
            .named(
                "retryMessage",
                "Send a failed message again",
                "Its failures are forgotten. 409 unless it is failed.",
            )
            .parameter(message_ref())
            .optional_body::<RetryBody>(retry_body())
            .answers::<OutboxMessage>(StatusCode::ACCEPTED, "The message will be sent.", &[], message("unpublished"))
            .problems(&[404, 409]),
        Operation::new(Method::POST, "/admin/messages/retry", "operations", retry_all)
            .named("retryMessages", "Send failed messages again", "Every one, or those that the filters choose.")
            .parameters(MessageFilter::parameters())
            .optional_body::<RetryBody>(retry_body())
            .answers::<Retried>(StatusCode::ACCEPTED, "They will be sent.", &[], json!({ "retried": 3 })),
        Operation::new(Method::DELETE, "/admin/messages/{messageRef}", "operations", discard)
            .named(
                "discardMessage",
                "Give a failed message up",
                "It is never sent, and stays to be looked at, with the reason. 409 unless it is failed.",
            )
            .parameter(message_ref())
            .parameter(Parameter::query("reason", "Why.", schema::visible(500, "its order was a test")).required())
            .answers::<OutboxMessage>(StatusCode::OK, "The message as it is kept.", &[], message("discarded"))
            .problems(&[404, 409, 422]),
    ]
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = MessageRetry)]
struct RetryBody {
    /// Says what would be sent again, and changes nothing.
    #[serde(default)]
    dry_run: bool,
    /// Why; kept in the audit. 1 to 500 visible characters.
    reason: Option<String>,
}

fn retry_body() -> Value {
    json!({ "dryRun": false, "reason": "the topic takes large messages now" })
}

fn message(state: &str) -> Value {
    let published = (state == "published").then_some(());
    let failed = ["failed", "discarded"].contains(&state).then_some(());
    let mut message = json!({
        "messageRef": "0192f0c2-3b1d-7c40-a1b2-c3d4e5f60718",
        "activityTypeCode": "ORDER_CREATED",
        "orderRef": "OS000042-ORD",
        "placedAt": "2026-11-22T17:04:05.123456Z",
        "state": state,
        "failures": failed.map_or(0, |()| 10),
        "lastError": failed.map(|()| "the broker refuses the message: message size too large"),
        "publishedAt": published.map(|()| "2026-11-22T17:04:05.140211Z"),
        "partition": published.map(|()| 3),
        "offset": published.map(|()| 42),
    });
    if state == "discarded" {
        message["discardedAt"] = json!("2026-11-22T18:00:00.000000Z");
        message["discardedBy"] = json!("operator-7");
        message["discardReason"] = json!("its order was a test");
    }
    message
}

async fn list(request: HttpRequest, pool: Data<Pool>) -> Result<HttpResponse, Problem> {
    let page = MessagePage::parse(request.query_string())?;
    let (messages, next) = read(messages::list(&pool, &page)).await?;
    Ok(paging::respond(&request, &messages, next))
}

async fn find(request: HttpRequest, pool: Data<Pool>) -> Result<HttpResponse, Problem> {
    let message_ref = message_ref(&request)?;
    let message = read(messages::find(&pool, message_ref)).await?.ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok().json(message))
}

async fn retry(request: HttpRequest, body: Payload, pool: Data<Pool>, caller: Caller) -> Result<HttpResponse, Problem> {
    let message_ref = message_ref(&request)?;
    let wanted = RetryBody::of(&request, body).await?;
    if wanted.dry_run {
        let message = read(messages::find(&pool, message_ref)).await?.ok_or_else(Problem::not_found)?;
        return if message.state == "failed" { Ok(HttpResponse::Accepted().json(message)) } else { Err(not_failed()) };
    }
    let author = Author::of_request(&request, &caller);
    match read(messages::retry(&pool, message_ref, &author, wanted.reason.as_deref())).await? {
        Decision::Accepted(message) => Ok(HttpResponse::Accepted().json(message)),
        Decision::NotFailed => Err(not_failed()),
        Decision::Unknown => Err(Problem::not_found()),
    }
}

async fn retry_all(
    request: HttpRequest,
    body: Payload,
    pool: Data<Pool>,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    let mut query = Query::parse(request.query_string(), &MessageFilter::PARAMETERS)?;
    let filter = MessageFilter::read(&mut query)?;
    let author = Author::of_request(&request, &caller);
    let wanted = RetryBody::of(&request, body).await?;
    let retried = if wanted.dry_run {
        read(messages::count_failed(&pool, &filter)).await?
    } else {
        read(messages::retry_all(&pool, &filter, &author, wanted.reason.as_deref(), |_| {})).await?
    };
    Ok(HttpResponse::Accepted().json(Retried { retried }))
}

async fn discard(request: HttpRequest, pool: Data<Pool>, caller: Caller) -> Result<HttpResponse, Problem> {
    let mut query = Query::parse(request.query_string(), &["reason"])?;
    let message_ref = Uuid::try_parse(&path_parameter(&request)?).map_err(|_| Problem::not_found())?;
    let reason = audit::reason(&mut query)?;
    let author = Author::of_request(&request, &caller);
    match read(messages::discard(&pool, message_ref, &author, &reason)).await? {
        Decision::Accepted(message) => Ok(HttpResponse::Ok().json(message)),
        Decision::NotFailed => Err(Problem::conflict("Only a failed message can be discarded.")),
        Decision::Unknown => Err(Problem::not_found()),
    }
}

impl RetryBody {
    /// As it is meant where nothing was sent, and with the reason as it is kept.
    async fn of(request: &HttpRequest, body: Payload) -> Result<Self, Problem> {
        let body = json::optional_body::<Object<Self>>(request, body).await?;
        let Self { dry_run, reason } = body.map_or_else(Self::default, |Object(body)| body);
        let wrong = |rule: String| Problem::unprocessable(vec![Violation::new("/reason", format!("This {rule}."))]);
        let reason = reason.map(|reason| text::parse_reason(&reason)).transpose().map_err(wrong)?;
        Ok(Self { dry_run, reason })
    }
}

fn not_failed() -> Problem {
    Problem::conflict("Only a failed message can be sent again.")
}

fn message_ref(request: &HttpRequest) -> Result<Uuid, Problem> {
    Query::none(request.query_string())?;
    Uuid::try_parse(&path_parameter(request)?).map_err(|_| Problem::not_found())
}
