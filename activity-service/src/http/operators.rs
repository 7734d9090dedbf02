//! What operators see beside the quarantine: who did what.

use actix_web::{HttpRequest, HttpResponse, http::Method, web::Data};
use shared::{
    audit,
    http::{Operation, read},
    paging,
    problem::Problem,
};

use super::Api;

pub(super) fn operations() -> [Operation; 1] {
    [audit::documented(Operation::new(Method::GET, "/admin/audit", "operations", list_audit))]
}

/// # Errors
/// 400 and 422 where the query cannot be read; 503.
async fn list_audit(request: HttpRequest, api: Data<Api>) -> Result<HttpResponse, Problem> {
    let page = audit::Page::parse(request.query_string())?;
    let (entries, next) = read(crate::audit::list(&api.pool, &page)).await?;
    Ok(paging::respond(&request, &entries, next))
}
