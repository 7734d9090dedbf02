//! Who changed what: the table `audit`. An order's own changes write it in their one statement, see [`crate::change`].

shared::audit_table!();
