/** @file Small pictures, drawn here: none comes from elsewhere. */

import { svg } from './dom.js';

/** @type {Record<string, string>} */
const PATHS = {
  auto: 'M12 3a9 9 0 1 0 0 18Zm0 0a9 9 0 0 1 0 18',
  light:
    'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8Zm0-5v2m0 14v2M3 12h2m14 0h2M5.6 5.6 7 7m10 10 1.4 1.4m0-12.8L17 7M7 17l-1.4 1.4',
  dark: 'M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5Z',
  menu: 'M4 7h16M4 12h16M4 17h16',
  folder:
    'M3.5 7A1.5 1.5 0 0 1 5 5.5h4l2 2.5h8A1.5 1.5 0 0 1 20.5 9.500v8A1.5 1.5 0 0 1 19 19H5a1.5 1.5 0 0 1-1.5-1.500Z',
  gauge: 'M4 18a9 9 0 1 1 16 0M12 14l4-5',
  search: 'M11 4.500a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13ZM20 20l-4.3-4.3',
  jobs: 'M4 6h10M4 12h16M4 18h7',
  people:
    'M9 5.500a3 3 0 1 0 0 6 3 3 0 0 0 0-6ZM3.5 19c0-3 2.5-4.5 5.5-4.500s5.5 1.5 5.5 4.500M16 6a2.5 2.5 0 0 1 0 5m1.5 3.800c2 .5 3 1.9 3 4.2',
  pulse: 'M3 12h4l3-7 4 14 3-7h4',
  plus: 'M12 5v14M5 12h14',
  send: 'M4 12 20 4l-4 16-4-7Z',
  reply: 'M9 7 4 12l5 5m-5-5h9a6 6 0 0 1 6 6',
  edit: 'M4 20l1-4L16.5 4.500l3 3L8 19Z',
  trash: 'M5 7h14M10 4h4M7 7l1 13h8l1-13',
  upload: 'M12 16V5m0 0L7.5 9.500M12 5l4.5 4.500M4 19h16',
  down: 'M12 5v14m0 0 6-6m-6 6-6-6',
};

/** @param {string} name */
export function icon(name) {
  return svg(
    'svg',
    { viewBox: '0 0 24 24', class: 'icon', 'aria-hidden': 'true' },
    svg('path', { d: PATHS[name] ?? '' }),
  );
}
