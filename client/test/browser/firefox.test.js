/** Tabs in Firefox ESR against the server. */

import { startFirefox } from '../support/browsers.js';
import { stage } from '../support/stage.js';
import { sharedCases } from './shared.js';

sharedCases(stage(startFirefox));
