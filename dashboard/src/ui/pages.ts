import { IconApprovals, IconChat, IconModels, IconOverview, IconRuns, type Icon } from './icons'

export interface Page {
  to: '/' | '/chat' | '/models' | '/runs' | '/approvals'
  name: string
  about: string
  icon: Icon
}

/** The pages of the dashboard, in the order of the navigation. */
export const PAGES: readonly Page[] = [
  { to: '/', name: 'Overview', about: 'Health, load and what happened last', icon: IconOverview },
  { to: '/chat', name: 'Chat', about: 'Try a language model', icon: IconChat },
  { to: '/models', name: 'Models', about: 'Every model, its versions and state', icon: IconModels },
  { to: '/runs', name: 'Runs', about: 'Durable work: progress, logs, retries', icon: IconRuns },
  { to: '/approvals', name: 'Approvals', about: 'What workflows ask people', icon: IconApprovals },
]
