/** The reference kernels: a session like any other. Their values are held against definitions in test/graph. */
import { sessionLaws } from "./session_laws.ts";

sessionLaws("reference");
