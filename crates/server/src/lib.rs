//! MSGin5G Server (TS 23.554, 24.538, 29.538)
