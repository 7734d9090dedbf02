//! Types come into the world by registration, and what waited for one is counted then.

use std::borrow::Cow;

use shared::{
    contract::{message::ActivityTypeCode, text},
    operators::audit::{Action, Author},
    runtime::database::Pool,
    web::http::schema,
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use crate::{
    admission, audit,
    quarantine::{Filter, Pass, Reason, Replay, replay::How},
};

/// The name of a type: 1 to 200 visible characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeName(String);

impl ToSchema for TypeName {
    fn name() -> Cow<'static, str> {
        "ActivityTypeName".into()
    }
}

impl PartialSchema for TypeName {
    fn schema() -> RefOr<Schema> {
        schema::visible(200, "Order Eaten")
    }
}

impl TypeName {
    pub const RULE: &'static str = "This must be 1 to 200 visible characters.";

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text::visible(text, 200).map(Self)
    }
}

/// Registers a type or renames it, and notes who did; whether it was new. The transaction is short: those that count
/// stand still while a type is new, and what waited for it is counted after, by [`waiting_for`].
///
/// # Errors
/// The database's.
pub async fn register(
    pool: &Pool,
    code: &ActivityTypeCode,
    name: &TypeName,
    author: &Author,
) -> Result<bool, sqlx::Error> {
    let subject = [code.as_str().to_owned()];
    let mut transaction = pool.begin().await?;
    let renamed = sqlx::query!(
        "UPDATE activity_types SET activity_type_name = $2 WHERE activity_type_code = $1",
        code.as_str(),
        name.0
    );
    // A type that is there is known to everybody: nobody needs to be shut out.
    if renamed.execute(&mut *transaction).await?.rows_affected() == 1 {
        audit::record(&mut transaction, author, Action::TypeRenamed, &subject, None).await?;
        transaction.commit().await?;
        return Ok(false);
    }
    admission::close(&mut transaction, "2s").await?;
    // Somebody else may have registered it since.
    let is_new = sqlx::query_scalar!(
        r#"
        INSERT INTO activity_types AS known (activity_type_code, activity_type_name) VALUES ($1, $2)
        ON CONFLICT (activity_type_code) DO UPDATE SET activity_type_name = excluded.activity_type_name
        RETURNING (xmax = 0) AS "is_new!"
        "#,
        code.as_str(),
        name.0
    );
    let is_new = is_new.fetch_one(&mut *transaction).await?;
    let action = if is_new { Action::TypeRegistered } else { Action::TypeRenamed };
    audit::record(&mut transaction, author, action, &subject, None).await?;
    fail::fail_point!("registration::before_commit", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
    transaction.commit().await?;
    fail::fail_point!("registration::registered", |how| Err(shared::runtime::failpoint::kill_or_fail(how)));
    if is_new {
        tracing::info!(activity_type.code = %code, "type registered");
    }
    Ok(is_new)
}

/// The pass over what waited for a type. No transaction that took the type for unknown is under way
/// once [`register`] has returned, so one pass finds every message.
///
/// Of a type that was new no key was ever written, so none was purged, and nothing is too old. Where
/// somebody goes on with what an earlier registration left, that is not certain any more.
#[must_use]
pub fn waiting_for<'a>(
    pool: &'a Pool,
    code: ActivityTypeCode,
    is_new: bool,
    time_zone: &'a str,
    author: &'a Author,
) -> Replay<'a> {
    let how = How { time_zone, force: is_new, author, why: "its type was registered", dry_run: false };
    let filter = Filter { reason: Some(Reason::UnknownType), code: Some(code), ..Filter::default() };
    Replay::new(pool, Pass::new(filter), how)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_can_be_read() {
        for good in ["x", " Order Eaten ", "Bestellung verspeist", &"ä".repeat(200)] {
            assert!(TypeName::parse(good).is_some(), "{good}");
        }
        for bad in ["", "  ", "a\nb", "a\0", &"x".repeat(201)] {
            assert!(TypeName::parse(bad).is_none(), "{bad:?}");
        }
    }
}
