/** @file All projects, and a new one. */

import { bdi, form, h, put, time } from '../dom.js';

/** @param {import('../main.js').Context} context */
export async function projectsPage({ account: { api, me } }) {
  const list = h('ul', { class: 'tiles' });
  const none = h('p', { class: 'empty' }, 'There is no project yet. Name one above, and it is yours.');
  const more = h('button', { type: 'button', hidden: true }, 'Older projects');
  const read = async (/** @type {string} */ before) => {
    const { projects, next } = await api.projects({ before, limit: 60 });
    list.append(
      ...projects.map((project) =>
        h(
          'li',
          {},
          h(
            'a',
            { class: 'card tile', href: `#/p/${project.id}` },
            h('strong', {}, bdi(project.name)),
            h('span', { class: 'muted' }, project.role, ' · since ', time(project.created_at, 'day')),
          ),
        ),
      ),
    );
    more.hidden = !next;
    more.onclick = () => read(/** @type {string} */ (next));
    none.hidden = list.childElementCount > 0;
  };
  await read(/** @type {any} */ (undefined));
  const create = form(
    { class: 'row' },
    async ({ name }) => {
      const project = await api.createProject({ name: name });
      location.hash = `#/p/${project.id}`;
    },
    h('input', {
      name: 'name',
      required: true,
      maxlength: 100,
      value: `${me.name}’s project`,
      'aria-label': 'Name of a new project',
      onfocus: (/** @type {any} */ { target }) => target.select(),
    }),
    h('button', { type: 'submit', class: 'primary' }, 'Create project'),
  );
  const page = h('div', { class: 'page' });
  put(page, h('h1', {}, 'Projects'), create, none, list, more);
  return page;
}
