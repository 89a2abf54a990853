//! MSGin5G Configuration Function: who may use which UE Service ID (TS 33.501 Y.2, TS 29.549)
