import { testDevice } from "../support/runtime.ts";
import { sessionLaws } from "./session_laws.ts";

sessionLaws(testDevice);
