/** @file Who is in a project and what they may do; channels are made here too. */

import { avatar, bdi, button, complain, confirmed, form, h, listen, notice, plain, put } from '../dom.js';

const ROLES = { owner: 'also says who is in', member: 'reads and writes', viewer: 'reads' };

/** @param {import('../main.js').Context} context */
export function membersPage({ room, account, params, signal }) {
  const { api, id } = room;
  const list = h('ul', { class: 'lines' });
  const mayChange = () => room.role === 'owner';
  const roleSelect = (/** @type {any} */ props) =>
    h(
      'select',
      props,
      ...Object.entries(ROLES).map(([role, what]) =>
        h('option', { value: role, selected: role === (props.value ?? 'member'), title: what }, role),
      ),
    );
  const show = () => {
    const members = [...room.members.values()].sort((a, b) => a.name.localeCompare(b.name));
    put(
      list,
      members.map(({ user, name, role }) => {
        const state = room.presence.get(user) ?? 'offline';
        const select = roleSelect({ 'aria-label': `Role of ${plain(name)}`, value: role });
        select.onchange = () => api.setMember(id, user, select.value).catch(complain);
        const isMe = user === account.me.user;
        const question = isMe
          ? 'Leave the project?'
          : `Remove ${plain(name)} from the project? Their streams end within seconds.`;
        const verb = isMe ? 'Leave' : 'Remove';
        const remove = button(verb, async () => (await confirmed(question, verb)) && api.removeMember(id, user), {
          'aria-label': isMe ? null : `Remove ${plain(name)}`,
        });
        return h(
          'li',
          {},
          avatar(name, state),
          h(
            'div',
            { class: 'grow' },
            h('strong', {}, bdi(name)),
            isMe && h('span', { class: 'muted' }, ' (you)'),
            h('div', { class: 'muted small' }, `${user} · ${state}`),
          ),
          mayChange() ? select : h('span', { class: 'muted' }, role),
          mayChange() && remove,
        );
      }),
    );
  };
  show();
  listen(room, 'members presence project', show, signal);
  const add = form(
    { class: 'row wrap' },
    async ({ user, role }, element) => {
      const member = await api.setMember(id, user, /** @type {any} */ (role));
      notice(`${plain(member.name)} is in`);
      element.reset();
    },
    h('input', {
      name: 'user',
      required: true,
      placeholder: 'User, such as grace',
      'aria-label': 'User',
      autocomplete: 'off',
    }),
    roleSelect({ name: 'role', 'aria-label': 'Role' }),
    h('button', { type: 'submit' }, 'Add member'),
  );
  const channel = form(
    { class: 'row wrap' },
    async ({ name, topic }) => {
      const made = await api.createChannel(id, { name: name, topic: topic || undefined });
      location.hash = `#/p/${id}/chat/${encodeURIComponent(made.name)}`;
    },
    h('input', {
      name: 'name',
      required: true,
      placeholder: 'Name, such as design',
      'aria-label': 'Name of the channel',
      autocomplete: 'off',
      autofocus: params.has('new'),
    }),
    h('input', { name: 'topic', class: 'grow', placeholder: 'Topic, if it has one', 'aria-label': 'Topic' }),
    h('button', { type: 'submit' }, 'Create channel'),
  );
  const presence = h(
    'select',
    { 'aria-label': 'How you are shown' },
    ...['online', 'away', 'offline'].map((state) =>
      h('option', { value: state, selected: state === room.presence.get(account.me.user) }, state),
    ),
  );
  presence.onchange = () => api.setPresence(id, presence.value).catch(complain);
  return h(
    'div',
    { class: 'page' },
    h('h1', {}, 'Members'),
    list,
    h('div', { class: 'row' }, h('span', {}, 'You are shown as'), presence),
    mayChange() &&
      h(
        'section',
        {},
        h('h2', {}, 'Add a member'),
        add,
        h(
          'p',
          { class: 'muted small' },
          Object.entries(ROLES)
            .map(([role, what]) => `${role} ${what}`)
            .join(', '),
          '.',
        ),
      ),
    room.mayWrite && h('section', {}, h('h2', {}, 'New channel'), channel),
  );
}
