//! What leaves the machine is encrypted, unless somebody has said that it need not be.

use testing::{Setup, binary, plaintext};

fn bare() -> Setup {
    Setup::bare(binary("order-service"))
}

#[tokio::test]
async fn what_would_leave_the_machine_in_clear_is_refused_unless_it_is_allowed() {
    let further = [("database.session_url", "postgres://clerk@db.example/orders", "database.allow_plaintext")];
    plaintext::in_clear_is_refused_unless_allowed(&bare(), &further).await;
}

#[tokio::test]
async fn what_is_encrypted_or_stays_on_the_machine_is_taken() {
    plaintext::encrypted_or_local_is_taken(&bare()).await;
}

#[tokio::test]
async fn a_variable_is_no_way_round() {
    plaintext::no_variable_is_a_way_round(&bare()).await;
}
