//! The network exposure function (TS 29.522, TS 33.501 clauses 5.9.2.3 and 12).
