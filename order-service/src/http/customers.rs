//! Customers, of whom this service knows a reference only.

use actix_web::{
    HttpRequest,
    http::{Method, StatusCode},
    web::{Data, Json},
};
use serde_json::json;
use shared::{
    contract::customer::CustomerRef,
    operators::audit::{self, Author},
    runtime::database::Pool,
    web::{
        auth::Caller,
        http::{Operation, Parameter, path_parameter, read, schema},
        problem::Problem,
        query::Query,
    },
};

use crate::erasure::{self, Erased};

pub(super) fn operations() -> [Operation; 1] {
    [Operation::new(Method::DELETE, "/admin/customers/{customerRef}", "operations", erase)
        .named(
            "eraseCustomer",
            "Put a pseudonym into all orders of a customer",
            "Numbers and figures stay. The audit tells that it was done, not of whom: neither should the reason. After a 503 \
             a part may be done: the same request again does the rest.",
        )
        .parameter(Parameter::path("customerRef", "Who ordered.", schema::text()))
        .parameter(Parameter::query("reason", "Why.", schema::visible(500, "request 17 of 2026")).required())
        .answers::<Erased>(StatusCode::OK, "How many orders had the reference.", &[], json!({ "orders": 3 }))
        .problems(&[404, 422])]
}

async fn erase(request: HttpRequest, pool: Data<Pool>, caller: Caller) -> Result<Json<Erased>, Problem> {
    let mut query = Query::parse(request.query_string(), &["reason"])?;
    let customer = CustomerRef::parse(&path_parameter(&request)?).ok_or_else(Problem::not_found)?;
    let reason = audit::reason(&mut query)?;
    let author = Author::of_request(&request, &caller);
    read(erasure::erase(&pool, &customer, &author, &reason, |_| {})).await.map(Json)
}
