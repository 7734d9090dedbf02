//! Settings that hold secrets, and every command that reads them.

use testing::{Setup, binary, secrets};

const LIST: &str = "quarantine list";

fn bare() -> Setup {
    Setup::bare(binary("activity-service"))
}

#[tokio::test]
async fn a_wrong_setting_is_named_and_its_value_is_not_told() {
    secrets::wrong_settings_are_named_without_their_values(&bare(), LIST).await;
}

#[tokio::test]
async fn the_settings_are_shown_without_what_is_secret_in_them() {
    secrets::settings_are_shown_without_secrets(&bare()).await;
}

#[tokio::test]
async fn a_database_out_of_reach_is_told_of_without_its_password() {
    secrets::a_database_out_of_reach_is_told_of_without_its_password(&bare(), LIST).await;
}
