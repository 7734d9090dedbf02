//! Who changed what: the table `audit`.

shared::audit_table!();
