use actix_web::{HttpRequest, web::Data, web::Json};
use shared::{http::read, problem::Problem, query::Query};

use super::Api;
use crate::statistics::{self, ActivityType};

/// # Errors
/// 400 for any parameter; 503.
pub async fn list(request: HttpRequest, api: Data<Api>) -> Result<Json<Vec<ActivityType>>, Problem> {
    Query::parse(request.query_string(), &[])?;
    read(statistics::types(&api.pool)).await.map(Json)
}
